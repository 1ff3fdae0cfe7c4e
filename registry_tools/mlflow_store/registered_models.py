"""Find and list registered models, and the version in each of their stages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel

from registry_tools.errors import NotFound
from registry_tools.mlflow_store.client import Page, fetch_page, fetch_pages, quote, translate_errors
from registry_tools.refs import LEGACY_STAGES


@dataclass(frozen=True)
class RegisteredModelInfo:
    """A registered model and the version in each of its stages."""

    name: str
    stages: Mapping[str, int]
    description: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def get_registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Return MLflow's registered model with its aliases and legacy holders.

    Raises
    ------
    NotFound
        If there is no model of this name; the message lists existing models.
    """
    with translate_errors(client.tracking_uri):
        # Not `client.get_registered_model`, which reads every version of the model.
        found = client.search_registered_models(f"name = {quote(name)}", max_results=1)
        if found:
            return found[0]
        names = [m.name for m in client.search_registered_models(max_results=20)]
    known = f"there are: {', '.join(names)}" if names else "the registry is empty"
    raise NotFound(f"no registered model {name!r}; {known}")


def stages_of(model: RegisteredModel) -> dict[str, int]:
    """Return the version in each stage, read from the aliases.

    MLflow's aliases `Champion` and `champion` are different; here both mean the stage `champion`, and
    the alias in lower case has priority. A legacy stage of MLflow counts only with
    `REGISTRY_TOOLS_LEGACY_STAGES=true`, for a registry without aliases: a user who may not move an
    alias may still set a legacy stage.
    """
    stages = aliases_of(model)
    if uses_legacy_stages():
        held = {version.current_stage: int(version.version) for version in model.latest_versions}
        stages = {stage: held[legacy] for stage, legacy in LEGACY_STAGES.items() if legacy in held} | stages
    return stages


def aliases_of(model: RegisteredModel) -> dict[str, int]:
    """Return the version of each alias in lower case; the alias already in lower case has priority."""
    spelled = sorted(model.aliases.items(), key=lambda item: item[0].islower())
    return {alias.lower(): int(version) for alias, version in spelled}


def uses_legacy_stages() -> bool:
    """Return whether a stage without an alias resolves to MLflow's legacy stage of that name."""
    return os.environ.get("REGISTRY_TOOLS_LEGACY_STAGES", "").lower() in {"1", "true"}


def models_page(client: MlflowClient, size: int, token: str | None = None) -> Page[RegisteredModelInfo]:
    """Return one page of the registered models with their stages, by name."""
    found = fetch_page(client, client.search_registered_models, size, token)
    return Page(
        tuple(RegisteredModelInfo(m.name, stages_of(m), m.description or "") for m in found.items),
        found.following,
    )


def list_models(client: MlflowClient) -> list[RegisteredModelInfo]:
    """Return all registered models with their stages, sorted by name."""
    with translate_errors(client.tracking_uri):
        models = fetch_pages(client.search_registered_models, None, 200)
    return [RegisteredModelInfo(m.name, stages_of(m), m.description or "") for m in models]

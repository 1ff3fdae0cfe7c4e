"""Find, list, register, tag and delete versions of registered models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import mlflow.exceptions
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from registry_tools.errors import NotFound
from registry_tools.mlflow_store.client import (
    Page,
    fetch_page,
    fetch_pages,
    if_exists,
    iso_time,
    quote,
    translate_errors,
)
from registry_tools.mlflow_store.registered_models import get_registered_model, stages_of, uses_legacy_stages
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.refs import ModelRef

_LONGEST_DESCRIPTION = 5_000  # characters; PostgreSQL refuses a longer one, which SQLite accepts


@dataclass(frozen=True)
class VersionInfo:
    """One version of a registered model, with the values that the registry and its run hold."""

    name: str
    version: int
    stages: tuple[str, ...] = ()
    run_id: str | None = None
    digest: str | None = None
    created_at: str = ""  # ISO 8601, UTC
    description: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def evidence_digest(self) -> str | None:
        """The digest of the evidence; None if the version has no evidence."""
        return self.tags.get(EVIDENCE_DIGEST_TAG)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a metric that is NaN or infinite becomes None."""
        metrics = {k: v if math.isfinite(v) else None for k, v in self.metrics.items()}
        return asdict(self) | {"stages": list(self.stages), "metrics": metrics}


def version_at_alias(client: MlflowClient, name: str, stage: str) -> ModelVersion | None:
    """Return the version at the alias of a stage; None if the alias or the model does not exist.

    This is one lookup in an index of the database. A request for the registered model reads all its
    versions, because MLflow also returns the newest version of each legacy stage.
    """
    return if_exists(client, client.get_model_version_by_alias, name, stage)


def _has_all_stages(version: ModelVersion) -> bool:
    """Return whether a version's own aliases alone determine its stages."""
    return all(alias.islower() for alias in version.aliases) and not uses_legacy_stages()


def _version_numbers(client: MlflowClient, name: str, most: int = 20) -> str:
    found = _search_versions(client, name, most + 1)
    numbers = ", ".join(str(v.version) for v in found[:most])
    return numbers + (", …" if len(found) > most else "")


def _search_versions(client: MlflowClient, name: str, limit: int | None) -> list[ModelVersion]:
    """Return MLflow's versions of a model, newest first."""
    search = partial(client.search_model_versions, f"name = {quote(name)}", order_by=["version_number DESC"])
    with translate_errors(client.tracking_uri):
        return fetch_pages(search, limit, 1000)


def list_versions(client: MlflowClient, name: str, *, limit: int | None = None) -> list[VersionInfo]:
    """Return the versions of a model with their stages and metrics, newest first.

    Parameters
    ----------
    client, name
        The registry and the model.
    limit
        The largest number of versions; None returns all.

    Raises
    ------
    NotFound
        If there is no model of this name.
    """
    stages = stages_of(get_registered_model(client, name))
    found = _search_versions(client, name, limit)
    return [_with_metrics(client, _info(version, stages)) for version in found]


def versions_page(
    client: MlflowClient, model: RegisteredModel, size: int, token: str | None = None
) -> Page[VersionInfo]:
    """Return one page of the versions of a registered model, without metrics, newest first."""
    condition, order = f"name = {quote(model.name)}", ["version_number DESC"]
    search = partial(client.search_model_versions, condition, order_by=order)
    found, stages = fetch_page(client, search, size, token), stages_of(model)
    return Page(tuple(_info(version, stages) for version in found.items), found.following)


def tagged_versions_page(
    client: MlflowClient, key: str, size: int, token: str | None = None
) -> Page[VersionInfo]:
    """Return one page of the versions that have a tag, of all models, without stages, newest first."""
    search = partial(
        client.search_model_versions, f"tag.`{key}` LIKE '%'", order_by=["creation_timestamp DESC"]
    )
    found = fetch_page(client, search, size, token)
    return Page(tuple(_info(version, {}) for version in found.items), found.following)


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run, such as the run of a version; None if it was removed."""
    return if_exists(client, client.get_run, run_id)


def version_with_tag(client: MlflowClient, name: str, key: str, value: str) -> int | None:
    """Return the number of the first version of a model with a tag; None if there is none."""
    with translate_errors(client.tracking_uri):
        found = client.search_model_versions(
            f"name = {quote(name)} and tag.`{key}` = {quote(value)}",
            max_results=1,
            order_by=["version_number ASC"],
        )
    return int(found[0].version) if found else None


def versions_with_tag(client: MlflowClient, key: str, name: str | None = None) -> list[VersionInfo]:
    """Return the versions with a tag, of one model or of all, without stages and metrics."""
    where = f" and name = {quote(name)}" if name is not None else ""
    search = partial(client.search_model_versions, f"tag.`{key}` LIKE '%'{where}")
    with translate_errors(client.tracking_uri):
        return [_info(version, {}) for version in fetch_pages(search, None, 1000)]


def get_version(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Return the current version of a reference, with the metrics of its run.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist; the message lists existing ones.
    """
    return _with_metrics(client, find_version(client, ref))


def find_version(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Return the current version of a reference without its metrics, which saves a request.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist; the message lists existing ones.
    """
    if ref.stage is not None:
        at_alias = version_at_alias(client, ref.name, ref.stage)
        if at_alias is not None and _has_all_stages(at_alias):
            return _info(at_alias, dict.fromkeys(at_alias.aliases, int(at_alias.version)))
    stages = stages_of(get_registered_model(client, ref.name))
    number = ref.version if ref.stage is None else stages.get(ref.stage)
    if number is None:
        held = ", ".join(f"{stage} (version {v})" for stage, v in sorted(stages.items()))
        text = f"stages in use: {held}" if held else "no stage is in use"
        raise NotFound(f"no version of {ref.name!r} is in stage {ref.stage!r}; {text}")
    return _version(client, ref.name, number, stages)


def get_version_without_stages(client: MlflowClient, name: str, number: int) -> VersionInfo:
    """Return a version with the metrics of its run. A request for the model, with its stages, is saved.

    Raises
    ------
    NotFound
        If the model has no such version; the message lists existing ones.
    """
    return _with_metrics(client, _version(client, name, number, {}))


def _version(client: MlflowClient, name: str, number: int, stages: Mapping[str, int]) -> VersionInfo:
    found = if_exists(client, client.get_model_version, name, str(number))
    if found is None:
        known = _version_numbers(client, name)
        text = f"there are: {known}" if known else "it has none"
        raise NotFound(f"{name!r} has no version {number}; {text}")
    return _info(found, stages)


def existing_version(client: MlflowClient, name: str, version: int | None) -> VersionInfo | None:
    """Return a version without stages and metrics; None if it was deleted, or if `version` is None."""
    found = if_exists(client, client.get_model_version, name, str(version)) if version is not None else None
    return _info(found, {}) if found is not None else None


def _info(version: ModelVersion, stages: Mapping[str, int]) -> VersionInfo:
    number = int(version.version)
    return VersionInfo(
        name=version.name,
        version=number,
        stages=tuple(sorted(stage for stage, held in stages.items() if held == number)),
        run_id=version.run_id or None,
        digest=version.tags.get(DIGEST_TAG),
        created_at=iso_time(version.creation_timestamp),
        description=version.description or "",
        tags=dict(version.tags),
    )


def _with_metrics(client: MlflowClient, info: VersionInfo) -> VersionInfo:
    run = find_run(client, info.run_id) if info.run_id is not None else None
    if run is None:
        return info
    return replace(info, metrics=dict(run.data.metrics), params=dict(run.data.params))


def register(
    client: MlflowClient,
    name: str,
    *,
    source: str,
    run_id: str,
    model_id: str | None = None,
    description: str,
    tags: Mapping[str, str],
) -> int:
    """Create a version with its tags in one call, and its model if needed; return the number."""
    with translate_errors(client.tracking_uri):
        try:
            client.create_registered_model(name)
            made = True
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            made = False
        try:
            version = client.create_model_version(
                name,
                source=source,
                run_id=run_id,
                model_id=model_id,
                description=_shorten(description),
                tags=dict(tags),
            )
        except mlflow.exceptions.MlflowException:
            if made and not _search_versions(client, name, 1):
                client.delete_registered_model(name)
            raise
        return int(version.version)


def _shorten(description: str) -> str:
    """Return a description that every database accepts, with a note if it was cut."""
    if len(description) <= _LONGEST_DESCRIPTION:
        return description
    note = f"\n\nCut here: a description has at most {_LONGEST_DESCRIPTION:,} characters.\n"
    return description[: _LONGEST_DESCRIPTION - len(note)] + note


def newest_version(client: MlflowClient, name: str) -> VersionInfo | None:
    """Return the newest version of a model, without stages and metrics; None if it has none."""
    found = _search_versions(client, name, 1)
    return _info(found[0], {}) if found else None


def set_tags(client: MlflowClient, version: VersionInfo, tags: Mapping[str, str]) -> None:
    """Set tags of a version, one request for each."""
    with translate_errors(client.tracking_uri):
        for key, value in tags.items():
            client.set_model_version_tag(version.name, str(version.version), key, value)


def delete_tag(client: MlflowClient, version: VersionInfo, key: str) -> None:
    """Delete a tag of a version."""
    with translate_errors(client.tracking_uri):
        client.delete_model_version_tag(version.name, str(version.version), key)


def delete_version(client: MlflowClient, name: str, version: int) -> None:
    """Delete a version. MLflow deletes its aliases with it, so the caller checks that it has none."""
    with translate_errors(client.tracking_uri):
        client.delete_model_version(name, str(version))

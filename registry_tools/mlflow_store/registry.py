"""Find, list, register, tag and delete versions of registered models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mlflow.exceptions
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from registry_tools.errors import NotFound
from registry_tools.mlflow_store.client import fetch_pages, is_missing, iso_time, quote, translate_errors
from registry_tools.mlflow_store.registered_models import get_registered_model, stages_of, uses_legacy_stages
from registry_tools.refs import ModelRef

DIGEST_TAG = "artifact_digest"  # the digest of the model files
EVIDENCE_DIGEST_TAG = "evidence_digest"
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


def _resolve(client: MlflowClient, ref: ModelRef) -> tuple[VersionInfo, ModelVersion]:
    """Return the version of a reference, without the metrics of its run."""
    if ref.stage is not None:
        found = version_at_alias(client, ref.name, ref.stage)
        if found is not None and _has_all_stages(found):
            return _info(found, dict.fromkeys(found.aliases, int(found.version))), found
    stages = stages_of(get_registered_model(client, ref.name))
    number = ref.version if ref.version is not None else _version_in_stage(ref, stages)
    version = _get_version(client, ref.name, number)
    return _info(version, stages), version


def version_at_alias(client: MlflowClient, name: str, stage: str) -> ModelVersion | None:
    """Return the version at the alias of a stage; None if the alias or the model does not exist.

    This is one lookup in an index of the database. A request for the registered model reads all its
    versions, because MLflow also returns the newest version of each legacy stage.
    """
    with translate_errors(client.tracking_uri):
        try:
            return client.get_model_version_by_alias(name, stage)
        except mlflow.exceptions.MlflowException as error:
            if not is_missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return None


def _has_all_stages(version: ModelVersion) -> bool:
    """Return whether a version's own aliases alone determine its stages."""
    return all(alias.islower() for alias in version.aliases) and not uses_legacy_stages()


def _version_in_stage(ref: ModelRef, stages: Mapping[str, int]) -> int:
    """Return the number of the version in the stage of a reference."""
    if ref.stage is None or ref.stage not in stages:
        held = ", ".join(f"{stage} (version {v})" for stage, v in sorted(stages.items()))
        raise NotFound(
            f"no version of {ref.name!r} is in stage {ref.stage!r}; "
            + (f"stages in use: {held}" if held else "no stage is in use")
        )
    return stages[ref.stage]


def _get_version(client: MlflowClient, name: str, version: int) -> ModelVersion:
    with translate_errors(client.tracking_uri):
        try:
            return client.get_model_version(name, str(version))
        except mlflow.exceptions.MlflowException as error:
            if not is_missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            known = _version_numbers(client, name)
            raise NotFound(
                f"{name!r} has no version {version}; " + (f"there are: {known}" if known else "it has none")
            ) from error


def _version_numbers(client: MlflowClient, name: str, most: int = 20) -> str:
    found = _search_versions(client, name, most + 1)
    numbers = ", ".join(str(v.version) for v in found[:most])
    return numbers + (", …" if len(found) > most else "")


def _search_versions(client: MlflowClient, name: str, limit: int | None) -> list[ModelVersion]:
    """Return MLflow's versions of a model, newest first."""
    return fetch_pages(
        lambda most, token: client.search_model_versions(
            f"name = {quote(name)}", max_results=most, order_by=["version_number DESC"], page_token=token
        ),
        limit,
        1000,
    )


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
    with translate_errors(client.tracking_uri):
        found = _search_versions(client, name, limit)
    return [_with_metrics(client, _info(version, stages)) for version in found]


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run, such as the run of a version; None if it was removed."""
    with translate_errors(client.tracking_uri):
        try:
            return client.get_run(run_id)
        except mlflow.exceptions.MlflowException as error:
            if not is_missing(error):
                raise
            return None


def version_with_tag(client: MlflowClient, name: str, key: str, value: str) -> int | None:
    """Return the number of the first version of a model with a tag; None if there is none."""
    with translate_errors(client.tracking_uri):
        found = client.search_model_versions(
            f"name = {quote(name)} and tag.`{key}` = {quote(value)}",
            max_results=1,
            order_by=["version_number ASC"],
        )
    return int(found[0].version) if found else None


def get_version(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Return the current version of a reference, with the metrics of its run.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist; the message lists existing ones.
    """
    info, _ = _resolve(client, ref)
    return _with_metrics(client, info)


def find_version(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Return the current version of a reference without its metrics, which saves a request.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist; the message lists existing ones.
    """
    return _resolve(client, ref)[0]


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
    if info.run_id is None:
        return info
    with translate_errors(client.tracking_uri):
        run = find_run(client, info.run_id)
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
        made = _make_model(client, name)
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


def _make_model(client: MlflowClient, name: str) -> bool:
    """Create a registered model if it does not exist; return whether it was created."""
    try:
        client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return False
    return True


def newest_version(client: MlflowClient, name: str) -> VersionInfo | None:
    """Return the newest version of a model, without stages and metrics; None if it has none."""
    with translate_errors(client.tracking_uri):
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

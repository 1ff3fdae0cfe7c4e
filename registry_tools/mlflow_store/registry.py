"""Models, versions and stages, as MLflow's registry has them; clients are explicit throughout."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mlflow.exceptions
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from registry_tools.errors import NotFound, RegistryToolsError
from registry_tools.mlflow_store.client import fetch_pages, translate_errors, upsert
from registry_tools.refs import LEGACY_STAGES, ModelRef

_log = logging.getLogger(__name__)

DIGEST_TAG = "artifact_digest"


@dataclass(frozen=True)
class VersionInfo:
    """One version of a registered model, as the registry knows it."""

    name: str
    version: int
    stages: tuple[str, ...] = ()
    run_id: str | None = None
    digest: str | None = None
    created_at: int = 0  # milliseconds since 1970
    description: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON, which has no NaN: such a metric is None."""
        metrics = {k: v if math.isfinite(v) else None for k, v in self.metrics.items()}
        return asdict(self) | {"stages": list(self.stages), "metrics": metrics}


@dataclass(frozen=True)
class RegisteredModelInfo:
    """A registered model and the version in each of its stages."""

    name: str
    stages: Mapping[str, int]
    description: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def _missing(error: mlflow.exceptions.MlflowException) -> bool:
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def get_registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Return MLflow's registered model with its aliases and legacy holders.

    Raises
    ------
    NotFound
        If there is none of this name; the message names those that exist.
    """
    with translate_errors(client.tracking_uri):
        # Not client.get_registered_model: that reads every version of the model.
        found = client.search_registered_models(f"name = {_quoted(name)}", max_results=1)
        if found:
            return found[0]
        names = [m.name for m in client.search_registered_models(max_results=20)]
    known = f"there are: {', '.join(names)}" if names else "the registry is empty"
    raise NotFound(f"no registered model {name!r}; {known}")


def _quoted(text: str) -> str:
    """Quote a text for MLflow's search language, which knows both quotes and no escape."""
    return f"'{text}'" if "'" not in text else f'"{text}"'


def _resolved(client: MlflowClient, ref: ModelRef) -> tuple[VersionInfo, ModelVersion]:
    """Return what the registry knows of a version, without the figures of its run."""
    if ref.stage is not None:
        found = _at_alias(client, ref.name, ref.stage)
        if found is not None and _tells_all(found):
            return _info(found, dict.fromkeys(found.aliases, int(found.version))), found
    stages = stages_of(get_registered_model(client, ref.name))
    number = ref.version if ref.version is not None else _held(ref, stages)
    version = _get_version(client, ref.name, number)
    return _info(version, stages), version


def _at_alias(client: MlflowClient, name: str, stage: str) -> ModelVersion | None:
    """Return the version at the alias of a stage; None if there is none, or no such model.

    For the registered model MLflow looks at each of its versions, as it gives the newest of each
    legacy stage; this is one look into an index, however many there are.
    """
    with translate_errors(client.tracking_uri):
        try:
            return client.get_model_version_by_alias(name, stage)
        except mlflow.exceptions.MlflowException as error:
            if not _missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return None


def _tells_all(version: ModelVersion) -> bool:
    """Whether a version's own aliases say which stages it holds, whatever the others have."""
    mirrors = {legacy: stage for stage, legacy in LEGACY_STAGES.items()}
    held = mirrors.get(str(getattr(version, "current_stage", None)))
    return all(alias.islower() for alias in version.aliases) and (
        held is None or held in version.aliases
    )


def _held(ref: ModelRef, stages: Mapping[str, int]) -> int:
    """Return the version in the stage of a reference."""
    if ref.stage is None or ref.stage not in stages:
        held = ", ".join(f"{stage} (version {v})" for stage, v in sorted(stages.items()))
        raise NotFound(
            f"no version of {ref.name!r} is in stage {ref.stage!r}; "
            + (f"stages in use: {held}" if held else "no stage is in use")
        )
    return stages[ref.stage]


def stages_of(model: RegisteredModel) -> dict[str, int]:
    """Return the version in each stage: the aliases, then legacy holders where there is none.

    MLflow tells `Champion` from `champion`; here both are the stage `champion`, and the alias that
    is written so counts first.
    """
    spelled = sorted(model.aliases.items(), key=lambda item: item[0].islower())
    stages = {alias.lower(): int(version) for alias, version in spelled}
    stage_of = {legacy: stage for stage, legacy in LEGACY_STAGES.items()}
    # A later MLflow may have no legacy stages at all.
    for version in getattr(model, "latest_versions", None) or ():
        stage = stage_of.get(str(getattr(version, "current_stage", None)))
        if stage is not None:
            stages.setdefault(stage, int(version.version))
    return stages


def _get_version(client: MlflowClient, name: str, version: int) -> ModelVersion:
    with translate_errors(client.tracking_uri):
        try:
            return client.get_model_version(name, str(version))
        except mlflow.exceptions.MlflowException as error:
            if not _missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            known = _version_numbers(client, name)
            raise NotFound(
                f"{name!r} has no version {version}; "
                + (f"there are: {known}" if known else "it has none")
            ) from error


def _version_numbers(client: MlflowClient, name: str, most: int = 20) -> str:
    found = _search_versions(client, name, most + 1)
    numbers = ", ".join(str(v.version) for v in found[:most])
    return numbers + (", …" if len(found) > most else "")


def _search_versions(client: MlflowClient, name: str, limit: int | None) -> list[ModelVersion]:
    """Return versions, newest first."""
    return fetch_pages(
        lambda most, token: client.search_model_versions(
            f"name = {_quoted(name)}",
            max_results=most,
            order_by=["version_number DESC"],
            page_token=token,
        ),
        limit,
        1000,
    )


def list_models(client: MlflowClient) -> list[RegisteredModelInfo]:
    """Return all registered models with their stages, by name."""
    with translate_errors(client.tracking_uri):
        models: list[RegisteredModel] = fetch_pages(
            lambda most, token: client.search_registered_models(max_results=most, page_token=token),
            None,
            200,
        )
    return [RegisteredModelInfo(m.name, stages_of(m), m.description or "") for m in models]


def list_versions(
    client: MlflowClient, name: str, *, limit: int | None = None
) -> list[VersionInfo]:
    """Return the versions of a model, newest first, `limit` of them at most."""
    stages = stages_of(get_registered_model(client, name))
    with translate_errors(client.tracking_uri):
        found = _search_versions(client, name, limit)
    return [_with_figures(client, _info(version, stages)) for version in found]


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run that a version came from; None if it is gone, while the version lives on."""
    try:
        return client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        if not _missing(error):
            raise
        return None


def version_with_tag(client: MlflowClient, name: str, key: str, value: str) -> int | None:
    """Return the first version of a model with a tag; None if there is none."""
    with translate_errors(client.tracking_uri):
        found = client.search_model_versions(
            f"name = {_quoted(name)} and tag.`{key}` = {_quoted(value)}",
            max_results=1,
            order_by=["version_number ASC"],
        )
    return int(found[0].version) if found else None


def get_version(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Return the version that a reference means now, with the figures of its run.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist; the message names what does.
    """
    info, _ = _resolved(client, ref)
    return _with_figures(client, info)


def find_version(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Return the version that a reference means now, without figures: one request less.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist; the message names what does.
    """
    return _resolved(client, ref)[0]


def _info(version: ModelVersion, stages: Mapping[str, int]) -> VersionInfo:
    number = int(version.version)
    return VersionInfo(
        name=version.name,
        version=number,
        stages=tuple(sorted(stage for stage, held in stages.items() if held == number)),
        run_id=version.run_id or None,
        digest=version.tags.get(DIGEST_TAG),
        created_at=version.creation_timestamp or 0,
        description=version.description or "",
        tags=dict(version.tags),
    )


def _with_figures(client: MlflowClient, info: VersionInfo) -> VersionInfo:
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
    """Make a new version, whole in one call, and return its number; the model is made if new."""
    with translate_errors(client.tracking_uri):
        made = _make_model(client, name)
        try:
            version = client.create_model_version(
                name,
                source=source,
                run_id=run_id,
                model_id=model_id,
                description=description,
                tags=dict(tags),
            )
        except mlflow.exceptions.MlflowException:
            if made and not _search_versions(client, name, 1):
                client.delete_registered_model(name)
            raise
        return int(version.version)


def _make_model(client: MlflowClient, name: str) -> bool:
    """Make a registered model unless there is one; return whether it was made."""
    try:
        client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return False
    return True


def move_alias(client: MlflowClient, name: str, stage: str, version: int) -> None:
    """Point the alias of a stage at a version."""
    with translate_errors(client.tracking_uri):
        upsert(lambda: client.set_registered_model_alias(name, stage, str(version)))


def mirror_legacy_stage(client: MlflowClient, name: str, stage: str, version: int) -> None:
    """Keep `models:/name/Production` going; the outgoing version becomes Archived there.

    A stage other than staging and production has no mirror, and a version has one legacy stage:
    what is in production stays so. The stage is the alias, and that is moved by then: a mirror that
    cannot be set is told of, and no error. A later MLflow may know none at all.
    """
    transition = getattr(client, "transition_model_version_stage", None)
    if stage not in LEGACY_STAGES or transition is None:
        return
    try:
        if stage == "staging" and stage_holder(client, name, "production") == version:
            return
        with translate_errors(client.tracking_uri), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*stages", category=FutureWarning)
            try:
                transition(name, str(version), LEGACY_STAGES[stage], archive_existing_versions=True)
            except mlflow.exceptions.MlflowException as error:
                # MLflow 3.17 with psycopg 3 compares a number with a text when it is to archive.
                if "operator does not exist" not in str(error):
                    raise
                _archive_others(client, name, LEGACY_STAGES[stage], version)
                transition(name, str(version), LEGACY_STAGES[stage])
    except RegistryToolsError as error:
        _log.warning("the legacy stage of %s version %d was not set: %s", name, version, error)


def _archive_others(client: MlflowClient, name: str, legacy: str, version: int) -> None:
    for other in get_registered_model(client, name).latest_versions:
        if other.current_stage == legacy and int(other.version) != version:
            client.transition_model_version_stage(name, str(other.version), "Archived")


def unmirrored(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the stages whose legacy mirror is not where their alias is, with their versions."""
    model = get_registered_model(client, name)
    stages = stages_of(model)
    legacy = {
        str(getattr(version, "current_stage", None)): int(version.version)
        for version in getattr(model, "latest_versions", None) or ()
    }
    return {
        stage: stages[stage]
        for stage, mirror in LEGACY_STAGES.items()
        if stage in stages
        and legacy.get(mirror) != stages[stage]
        and not (stage == "staging" and stages.get("production") == stages[stage])
    }


def prove_may_write(client: MlflowClient, version: VersionInfo) -> None:
    """Find out before any work is done, and any record made, whether this user may move stages.

    MLflow has no way to ask. The digest or the description is written as it stands, which takes the
    same permission as moving an alias; the version's time of the last update is all that changes.

    Raises
    ------
    AccessDenied
        If not.
    """
    number = str(version.version)
    with translate_errors(client.tracking_uri):
        if version.digest is not None:
            client.set_model_version_tag(version.name, number, DIGEST_TAG, version.digest)
        else:
            client.update_model_version(version.name, number, version.description)


def stage_holder(client: MlflowClient, name: str, stage: str) -> int | None:
    """Return the version in a stage now, None if there is none."""
    found = _at_alias(client, name, stage)
    if found is not None:
        return int(found.version)
    return stages_of(get_registered_model(client, name)).get(stage)


def delete_version(client: MlflowClient, name: str, version: int) -> None:
    """Delete a version. MLflow would delete its aliases with it: see that it has none first."""
    with translate_errors(client.tracking_uri):
        client.delete_model_version(name, str(version))

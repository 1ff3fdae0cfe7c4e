"""Everything that this package says to MLflow's registry; clients are explicit throughout."""

from __future__ import annotations

import contextlib
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
import mlflow.exceptions
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from registry_tools import evidence
from registry_tools.errors import (
    AccessDenied,
    NotFound,
    RegistryToolsError,
    RegistryUnavailable,
    UnsupportedOperation,
)
from registry_tools.refs import LEGACY_STAGES, ModelRef

DIGEST_TAG = "artifact_digest"

_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


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


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """Return a client of an existing registry.

    Parameters
    ----------
    tracking_uri
        Where it is. None takes what MLflow itself takes: `mlflow.set_tracking_uri`, then
        `MLFLOW_TRACKING_URI`, then `sqlite:///mlflow.db`.

    Raises
    ------
    RegistryUnavailable
        If it is an SQLite file that does not exist (MLflow would make an empty one), or no URI
        of a registry at all.
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///"):
        # Before there is a client: making one makes the file.
        database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not database.is_file():
            raise RegistryUnavailable(
                f"no registry at {uri} (looked in {database.absolute().parent}): train a model "
                "first, or name another with --tracking-uri or MLFLOW_TRACKING_URI"
            )
    elif ":" not in uri:
        raise RegistryUnavailable(
            f"{uri!r} is no address of a registry: write sqlite:///FILE or http://HOST:PORT"
        )
    with translated(uri):
        return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn MLflow's errors into ours; `where` is the registry that they came from."""
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        raise _translate(error, where) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        # MLflow lets through what its database says while it is being opened.
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise RegistryUnavailable(f"the registry at {where} cannot be used: {reason}") from error


def _translate(error: mlflow.exceptions.MlflowException, where: str) -> RegistryToolsError:
    text = " ".join(str(error).split())
    if error.error_code in _DENIED or "error code 401" in text or "error code 403" in text:
        return AccessDenied(
            f"{where} refused this: {text[:200]}; sign in with MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or ask for the permission"
        )
    if "readonly database" in text or "unable to open database" in text:
        return RegistryUnavailable(
            f"the registry at {where} cannot be written to: check the permissions "
            "of file and folder"
        )
    if "failed with exception" in text or error.error_code == "TEMPORARILY_UNAVAILABLE":
        return RegistryUnavailable(
            f"the registry at {where} does not answer: check that it runs, or set "
            "MLFLOW_TRACKING_URI to another"
        )
    return RegistryToolsError(f"the registry at {where} answered: {text[:300]}")


def _missing(error: mlflow.exceptions.MlflowException) -> bool:
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def get_registered_model(client: MlflowClient, name: str) -> RegisteredModel:
    """Return MLflow's registered model with its aliases and legacy holders.

    Raises
    ------
    NotFound
        If there is none of this name; the message names those that exist.
    """
    with translated(client.tracking_uri):
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
    stages = stages_of(get_registered_model(client, ref.name))
    number = ref.version if ref.version is not None else _held(ref, stages)
    version = _get_version(client, ref.name, number)
    return _info(version, stages), version


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
    with translated(client.tracking_uri):
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
    found: list[ModelVersion] = []
    token = None
    while limit is None or len(found) < limit:
        page = client.search_model_versions(
            f"name = {_quoted(name)}",
            max_results=min(limit - len(found), 1000) if limit is not None else 1000,
            order_by=["version_number DESC"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            break
    return found


def list_models(client: MlflowClient) -> list[RegisteredModelInfo]:
    """Return all registered models with their stages, by name."""
    models: list[RegisteredModel] = []
    token = None
    with translated(client.tracking_uri):
        while True:
            page = client.search_registered_models(max_results=200, page_token=token)
            models += page
            token = page.token
            if not token:
                break
    return [RegisteredModelInfo(m.name, stages_of(m), m.description or "") for m in models]


def list_versions(
    client: MlflowClient, name: str, *, limit: int | None = None
) -> list[VersionInfo]:
    """Return the versions of a model, newest first, `limit` of them at most."""
    stages = stages_of(get_registered_model(client, name))
    with translated(client.tracking_uri):
        found = _search_versions(client, name, limit)
    return [_with_figures(client, _info(version, stages)) for version in found]


def version_with_tag(client: MlflowClient, name: str, key: str, value: str) -> int | None:
    """Return the first version of a model with a tag; None if there is none."""
    with translated(client.tracking_uri):
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
    # The run may be gone while the version lives on: then there are no figures to show.
    with translated(client.tracking_uri), contextlib.suppress(NotFound):
        run = _get_run(client, info.run_id)
        return replace(info, metrics=dict(run.data.metrics), params=dict(run.data.params))
    return info


def _get_run(client: MlflowClient, run_id: str) -> Any:
    try:
        return client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        if not _missing(error):
            raise
        raise NotFound(f"no run {run_id}") from error


@contextlib.contextmanager
def model_files(client: MlflowClient, name: str, version: int) -> Iterator[Path]:
    """Yield a folder with the files of a version; a store on this disk is not copied."""
    with translated(client.tracking_uri):
        uri = client.get_model_version_download_uri(name, str(version))
    with fetched(client, uri) as folder:
        yield folder


@contextlib.contextmanager
def fetched(client: MlflowClient, uri: str) -> Iterator[Path]:
    """Yield a folder with the files at an artifact URI; what was downloaded goes afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        # MLflow returns the path itself where the files lie on this disk, unless told a folder.
        local = uri.startswith(("/", "file:"))
        with translated(client.tracking_uri):
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=uri,
                dst_path=None if local else scratch,
                tracking_uri=client.tracking_uri,
            )
        yield Path(path)


@contextlib.contextmanager
def evidence_files(client: MlflowClient, version: VersionInfo) -> Iterator[Path | None]:
    """Yield a folder with the evidence of a version; None if its run has none."""
    with _evidence(client, version, None) as folder:
        yield folder


@contextlib.contextmanager
def evidence_file(client: MlflowClient, version: VersionInfo, name: str) -> Iterator[Path | None]:
    """Yield one file of the evidence of a version; None if there is none of that name."""
    with _evidence(client, version, name) as path:
        yield path


@contextlib.contextmanager
def _evidence(
    client: MlflowClient, version: VersionInfo, name: str | None
) -> Iterator[Path | None]:
    uri = None
    if version.run_id is not None:
        with translated(client.tracking_uri), contextlib.suppress(NotFound):
            root = str(_get_run(client, version.run_id).info.artifact_uri)
            there = [file.path for file in client.list_artifacts(version.run_id, evidence.FOLDER)]
            path = f"{evidence.FOLDER}/{name}" if name is not None else evidence.FOLDER
            if path in there if name is not None else there:
                uri = f"{root}/{path}"
    if uri is None:
        yield None
        return
    with fetched(client, uri) as found:
        yield found


def add_evidence(client: MlflowClient, version: VersionInfo, path: Path) -> None:
    """Put a file beside the evidence of a version.

    Raises
    ------
    UnsupportedOperation
        If the version came from no run.
    """
    if version.run_id is None:
        raise UnsupportedOperation(
            f"{version.name} version {version.version} came from no run: there is no place to "
            "keep its evidence; register it from a run"
        )
    with translated(client.tracking_uri):
        client.log_artifact(version.run_id, str(path), evidence.FOLDER)


def manifest(client: MlflowClient, version: VersionInfo) -> dict[str, str] | None:
    """Return the manifest made at registration; None if there is none that can be read."""
    with evidence_files(client, version) as folder:
        return evidence.read_manifest(folder) if folder is not None else None


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
    with translated(client.tracking_uri):
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
    with translated(client.tracking_uri):
        client.set_registered_model_alias(name, stage, str(version))


def mirror_legacy_stage(client: MlflowClient, name: str, stage: str, version: int) -> None:
    """Keep `models:/name/Production` going; the outgoing version becomes Archived there.

    A stage other than staging and production has no mirror; a later MLflow may know none at all.
    """
    transition = getattr(client, "transition_model_version_stage", None)
    if stage not in LEGACY_STAGES or transition is None:
        return
    with translated(client.tracking_uri), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*stages", category=FutureWarning)
        transition(name, str(version), LEGACY_STAGES[stage], archive_existing_versions=True)


def check_may_write(client: MlflowClient, version: VersionInfo) -> None:
    """Find out before any work is done, and any record made, whether this user may move stages.

    MLflow has no way to ask. The digest or the description is written as it stands, which takes the
    same permission as moving an alias.

    Raises
    ------
    AccessDenied
        If not.
    """
    number = str(version.version)
    with translated(client.tracking_uri):
        if version.digest is not None:
            client.set_model_version_tag(version.name, number, DIGEST_TAG, version.digest)
        else:
            client.update_model_version(version.name, number, version.description)


def stage_holder(client: MlflowClient, name: str, stage: str) -> int | None:
    """Return the version in a stage now, None if there is none."""
    return stages_of(get_registered_model(client, name)).get(stage)


def delete_version(client: MlflowClient, name: str, version: int) -> None:
    """Delete a version. MLflow would delete its aliases with it: see that it has none first."""
    with translated(client.tracking_uri):
        client.delete_model_version(name, str(version))


def failing_thresholds(
    figures: Mapping[str, float], minimum: Mapping[str, float], maximum: Mapping[str, float]
) -> list[str]:
    """Return the metrics that miss their thresholds, as MLflow judges them."""
    from mlflow.models import EvaluationResult, MetricThreshold
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    failed = []
    for bounds, greater in ((minimum, True), (maximum, False)):
        for name, wanted in bounds.items():
            threshold = MetricThreshold(  # type: ignore[no-untyped-call]
                threshold=float(wanted), greater_is_better=greater
            )
            result = EvaluationResult(  # type: ignore[no-untyped-call]
                metrics={name: figures[name]}, artifacts={}
            )
            try:
                mlflow.validate_evaluation_results({name: threshold}, result)
            except ModelValidationFailedException:
                failed.append(name)
    return failed

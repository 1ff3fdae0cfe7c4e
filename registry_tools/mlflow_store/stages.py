"""Stages in MLflow: read and write the alias of a stage, and mirror it to the legacy stage."""

from __future__ import annotations

import logging
import warnings

import mlflow.exceptions
from mlflow import MlflowClient

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import translate_errors, upsert
from registry_tools.mlflow_store.registered_models import get_registered_model, stages_of
from registry_tools.refs import LEGACY_STAGES

_log = logging.getLogger(__name__)


def move_alias(client: MlflowClient, name: str, stage: str, version: int) -> None:
    """Point the alias of a stage at a version."""
    with translate_errors(client.tracking_uri):
        upsert(lambda: client.set_registered_model_alias(name, stage, str(version)))


def mirror_legacy_stage(client: MlflowClient, name: str, stage: str, version: int) -> None:
    """Keep `models:/name/Production` going; the outgoing version becomes Archived there.

    A stage other than staging and production has no mirror, and a version has one legacy stage:
    what is in production stays so. The stage is the alias, and that is moved by then: a mirror that
    cannot be set is logged, and no error. A later MLflow may know none at all.
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


def check_write_access(client: MlflowClient, version: registry.VersionInfo) -> None:
    """Check, before any work is done or recorded, that this user may move stages.

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
            client.set_model_version_tag(version.name, number, registry.DIGEST_TAG, version.digest)
        else:
            client.update_model_version(version.name, number, version.description)


def stage_holder(client: MlflowClient, name: str, stage: str) -> int | None:
    """Return the version in a stage now, None if there is none."""
    found = registry.version_at_alias(client, name, stage)
    if found is not None:
        return int(found.version)
    return stages_of(get_registered_model(client, name)).get(stage)

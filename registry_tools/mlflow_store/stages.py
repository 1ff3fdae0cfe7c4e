"""Read and move the alias of a stage, and mirror it to MLflow's legacy stage."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping

import mlflow.exceptions
from mlflow import MlflowClient

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import if_exists, translate_errors, upsert
from registry_tools.mlflow_store.registered_models import aliases_of, get_registered_model
from registry_tools.policy.tag_names import DIGEST_TAG
from registry_tools.refs import LEGACY_STAGES

_log = logging.getLogger(__name__)


def move_alias(client: MlflowClient, name: str, stage: str, version: int | None) -> None:
    """Set the alias of a stage to a version, and delete other spellings; None deletes the alias."""
    with translate_errors(client.tracking_uri):
        if version is not None:
            upsert(lambda: client.set_registered_model_alias(name, stage, str(version)))
            # Only common spellings: to list all aliases, MLflow reads every version of the model.
            spellings = [each for each in (stage.title(), stage.upper()) if each != stage]
        else:
            aliases = get_registered_model(client, name).aliases
            spellings = [alias for alias in aliases if alias.lower() == stage]
        for alias in spellings:
            if registry.version_at_alias(client, name, alias) is not None:
                client.delete_registered_model_alias(name, alias)


def mirror_legacy_stages(client: MlflowClient, name: str, *outgoing: int | None) -> None:
    """Set MLflow's legacy stages from the aliases, so that `models:/name/Production` works.

    A version has one legacy stage: a version in production and staging gets `Production`. The caller
    has already moved the alias, which decides, so an error is only logged; `repair` sets the legacy
    stages again.

    Parameters
    ----------
    client, name
        The registry and the model.
    outgoing
        Versions that may have lost a stage. Those without any stage become `Archived`.
    """
    mirrored = None
    try:
        with translate_errors(client.tracking_uri), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*stages", category=FutureWarning)
            # Repeat if another client moved an alias in the meantime.
            while (held := {stage: stage_holder(client, name, stage) for stage in LEGACY_STAGES}) != mirrored:
                _set_legacy_stages(client, name, held, outgoing)
                mirrored = held
    except RegistryToolsError as error:
        _log.warning("the legacy stages of %s were not set: %s", name, error)


def _set_legacy_stages(
    client: MlflowClient, name: str, held: Mapping[str, int | None], outgoing: Iterable[int | None]
) -> None:
    wanted = dict.fromkeys(outgoing, "Archived")
    # Production comes last, so that it counts for a version in both stages.
    wanted |= {version: LEGACY_STAGES[stage] for stage, version in held.items()}
    for version, legacy in wanted.items():
        if version is not None:  # it may be deleted in the meantime
            if_exists(client, _transition, client, name, version, legacy)


def _transition(client: MlflowClient, name: str, version: int, legacy: str) -> None:
    current = client.get_model_version(name, str(version)).current_stage
    if current == legacy or (current == "None" and legacy == "Archived"):
        return
    try:
        client.transition_model_version_stage(name, str(version), legacy, legacy != "Archived")
    except mlflow.exceptions.MlflowException as error:
        # MLflow 3.17 with psycopg 3 fails to archive: its query compares a number with a text.
        if "operator does not exist" not in str(error):
            raise
        for other in get_registered_model(client, name).latest_versions:
            if other.current_stage == legacy and int(other.version) != version:
                client.transition_model_version_stage(name, str(other.version), "Archived")
        client.transition_model_version_stage(name, str(version), legacy)


def check_write_access(client: MlflowClient, name: str) -> None:
    """Check, before any work, that this user may move the stages of a model.

    MLflow has no request for this. So the function rewrites the digest or the description of the
    newest version with its present value, which needs the same permission as moving an alias. Only the
    version's time of the last update changes.

    Raises
    ------
    AccessDenied
        If the user lacks the permission.
    """
    version = registry.newest_version(client, name)
    if version is None:
        get_registered_model(client, name)  # its error lists existing models
        return
    if version.digest is not None:
        registry.set_tags(client, version, {DIGEST_TAG: version.digest})
        return
    with translate_errors(client.tracking_uri):
        client.update_model_version(name, str(version.version), version.description)


def stage_holder(client: MlflowClient, name: str, stage: str) -> int | None:
    """Return the version at the alias of a stage; None if the stage is empty."""
    found = registry.version_at_alias(client, name, stage)
    if found is not None:
        return int(found.version)
    return aliases_of(get_registered_model(client, name)).get(stage)

"""Delete a version, unless a stage holds it or a rollback would go back to it."""

from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.errors import NotFound, PromotionError
from registry_tools.mlflow_store import registered_models, registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.promotion import history
from registry_tools.refs import ModelRef


def delete(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Delete a version that no stage holds and no rollback would take.

    Raises
    ------
    PromotionError
        If one does; the message names the stage.
    """
    version = registry.get_version(client, ref)
    if version.stages:
        raise PromotionError(
            f"{version.name} version {version.version} is in {', '.join(version.stages)}: "
            "promote another version there first"
        )
    held = registered_models.stages_of(registered_models.get_registered_model(client, version.name))
    for stage in sorted({*held, *history.stages_moved(client, version.name)}):
        target = _next_holder(client, version.name, stage, held.get(stage))
        if target == version.version:
            raise PromotionError(
                f"{version.name} version {version.version} is the version that a rollback of "
                f"{stage} would go back to: keep it until another version has been promoted twice"
            )
    registry.delete_version(client, version.name, version.version)
    return version


def _next_holder(client: MlflowClient, name: str, stage: str, held: int | None) -> int | None:
    """Return the version that a rollback would go back to, unless its gates refuse it."""
    for event in history.holders_before(client, name, stage, held):
        if event.version in {None, held}:
            continue
        try:
            registry.find_version(client, ModelRef(name, version=event.version))
        except NotFound:
            continue
        return event.version
    return None

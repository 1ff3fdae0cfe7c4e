"""Delete a version, unless a stage holds it or a rollback needs it."""

from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, PromotionError
from registry_tools.mlflow_store import registered_models, registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.mlflow_store.tags import DELETING_TAG
from registry_tools.promotion import history
from registry_tools.promotion.event import Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.refs import ModelRef


def delete(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    """Delete a version that no stage holds and no rollback needs.

    This function tags the version before it reads the stages. A client that moves a stage appends its
    event before it reads the tag. So if both happen at the same time, at least one client notices.

    Raises
    ------
    PromotionError
        If a stage or a rollback needs the version; the message names the stage.
    """
    version = registry.find_version(client, ref)
    _check_unneeded(client, version)
    registry.set_tags(client, version, {DELETING_TAG: "true"})
    try:
        _check_unneeded(client, version)
        registry.delete_version(client, version.name, version.version)
    except BaseException:
        try:
            registry.delete_tag(client, version, DELETING_TAG)
        except AccessDenied:  # MLflow lets a user set a tag who may neither delete it nor the version
            registry.set_tags(client, version, {DELETING_TAG: "false"})
        raise
    return version


def _check_unneeded(client: MlflowClient, version: VersionInfo) -> None:
    reason = _reason_to_keep(client, version)
    if reason is not None:
        raise PromotionError(f"{version.name} version {version.version} {reason}")


def _reason_to_keep(client: MlflowClient, version: VersionInfo) -> str | None:
    held = registered_models.stages_of(registered_models.get_registered_model(client, version.name))
    log = EventLog.find(client, version.name)
    heads = {stage: log.head(stage) for stage in log.stages()}
    entries = [(stage, log.entry(head).version) for stage, head in heads.items()]
    holding = {stage for stage, number in [*held.items(), *entries] if number == version.version}
    if holding:
        return f"is in {', '.join(sorted(holding))}: promote another version there first"
    for stage, head in heads.items():
        if _next_holder(log, head, held.get(stage)) == version.version:
            return (
                f"is the version that a rollback of {stage} would go back to: keep it until another "
                "version has been promoted twice"
            )
    return None


def _next_holder(log: EventLog, head: Event, held: int | None) -> int | None:
    """Return the next version that a rollback would try; None if there is none."""
    earlier = (event.version for event in history.rollback_targets(log, head) if event.version != held)
    return next((each for each in earlier if registry.existing_version(log.client, log.model, each)), None)

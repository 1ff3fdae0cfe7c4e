"""Read from a registry what a decision on the move of a stage depends on."""

from __future__ import annotations

from datetime import datetime, timezone

from mlflow import MlflowClient

from registry_tools.errors import AccessDenied, MoveRefused, RegistryToolsError
from registry_tools.mlflow_store import stages
from registry_tools.mlflow_store.client import current_user, translate_errors
from registry_tools.mlflow_store.registered_models import get_registered_model
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.policy.decision import Move
from registry_tools.policy.tag_names import head_tag
from registry_tools.promotion.event_log import EventLog


def read_move(client: MlflowClient, version: VersionInfo, stage: str) -> Move:
    """Return the move of a stage to a version by this user, with the present state of the registry."""
    return Move(
        model=version.name,
        stage=stage,
        version=version.version,
        holder=stages.stage_holder(client, version.name, stage),
        head=stage_head(client, version.name, stage),
        digests={"model": version.digest, "evidence": version.evidence_digest},
        tags=version.tags,
        user=current_user(),
        now=datetime.now(timezone.utc),
    )


def stage_head(client: MlflowClient, name: str, stage: str) -> int:
    """Return the number of moves of a stage, to which verdicts and approvals are bound.

    A gated registry counts the moves itself, from 0. In another registry it is the number of the last
    event in the history of the stage.

    Raises
    ------
    RegistryToolsError
        If the count in the registry is not a number.
    """
    count = get_registered_model(client, name).tags.get(head_tag(stage))
    if count is None:
        return 0 if _is_gated(client, name, stage) else EventLog.find(client, name).head(stage).sequence
    if not (count.isascii() and count.isdecimal()):
        raise RegistryToolsError(
            f"the tag {head_tag(stage)} of {name} is {count!r}, not a number; correct it in MLflow"
        )
    return int(count)


def _is_gated(client: MlflowClient, name: str, stage: str) -> bool:
    """Return whether the registry protects the count of a stage, by deleting the tag, which is missing."""
    try:
        with translate_errors(client.tracking_uri):
            client.delete_registered_model_tag(name, head_tag(stage))
    except MoveRefused:
        return True
    except AccessDenied:  # a user who may only read cannot find out
        return False
    return False

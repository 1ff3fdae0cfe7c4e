"""The record kept true: what a crash left open is closed, what others moved is recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from registry_tools import history, registry, turns
from registry_tools.errors import GateRefused, RegistryToolsError, StageMoved
from registry_tools.formats import TrustPolicy
from registry_tools.gates import GateResult, Verdict
from registry_tools.history import Act
from registry_tools.judging import judge_return
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


def repair(client: MlflowClient, name: str, *, actor: str | None = None) -> list[str]:
    """Close the acts that a crash left open, and record moves by other means; say what was done.

    Acts under way are left alone: an open act is watched for a sign of life first, which takes up
    to `turns.DEAD_SECONDS`.
    """
    who = actor or history.current_user()
    model = registry.get_registered_model(client, name)
    done = []
    for act in turns.dead(client, history.open_acts(client, name)):
        outcome = finish(client, name, act)
        done.append(f"{act.action} {act.version} → {act.stage} was left open; now {outcome}")
    for stage, held in sorted(registry.stages_of(model).items()):
        last = history.last_done(client, name, stage)
        if last is None or last.version == held:
            continue
        act = history.open_external(client, name, stage, held, last, who)
        with (
            under_way(client, act),
            turns.turn(client, name, act, finish=partial(finish, client, name)),
        ):
            history.close(client, act, history.DONE, under=last.run_id)
        done.append(f"{stage} was moved from {last.version} to {held} by other means; recorded")
    for stage, version in sorted(registry.stages_of(model).items()):
        registry.mirror_legacy_stage(client, name, stage, version)
    return done


def finish(client: MlflowClient, name: str, act: Act) -> str:
    """Close an act that was killed, as what it came to: done if it had moved the stage."""
    if act.outcome != history.UNFINISHED:  # killed between the last two writes
        history.close(client, act, act.outcome)
        return act.outcome
    held = registry.stage_holder(client, name, act.stage)
    last = history.last_done(client, name, act.stage)
    moved = act.turn is not None and held == act.version and (last is None or last.version != held)
    if not moved:
        history.close(client, act, history.UNFINISHED)
        return history.UNFINISHED
    registry.mirror_legacy_stage(client, name, act.stage, act.version)
    under = last.run_id if last is not None else ""
    if act.action == history.ROLLBACK:
        before = list(history.holders_before(client, name, act.stage, act.previous_version))
        under = next((a.under or "" for a in before if a.version == act.version), "")
    history.close(client, act, history.DONE, under=under)
    return history.DONE


def verify(client: MlflowClient, ref: ModelRef, policy: TrustPolicy) -> Verdict:
    """Check a version's files, format and recorded answer, and its model's history."""
    version = registry.find_version(client, ref)
    verdict = judge_return(client, version, policy)
    stages = registry.stages_of(registry.get_registered_model(client, version.name))
    unexplained = irregularities(client, version.name, stages)
    explained = GateResult(
        "history",
        not unexplained,
        "; ".join(unexplained) or "every stage is where its last act left it",
    )
    return Verdict((*verdict.gates, explained))


def irregularities(client: MlflowClient, name: str, stages: dict[str, int]) -> list[str]:
    """Return what the history does not explain: moves by other means, acts left open."""
    found = [
        f"{act.action} {act.version} → {act.stage} by {act.actor} was begun and never finished"
        for act in turns.dead(client, history.open_acts(client, name))
    ]
    for stage in history.stages_moved(client, name):
        last = history.last_done(client, name, stage)
        held = stages.get(stage)
        if last is not None and last.version != held:
            found.append(
                f"{stage} is at {shown(held)}, the history says version {last.version}: moved by "
                "other means"
            )
    return found


@contextmanager
def under_way(client: MlflowClient, act: Act) -> Iterator[None]:
    """Give signs of life, and close the act when its work fails, so that nobody has to wait."""
    try:
        with turns.signs_of_life(client, act):
            yield
    except (GateRefused, StageMoved):
        raise  # closed already, with an outcome of its own
    except BaseException:
        try:
            history.close(client, act, history.UNFINISHED)
        except RegistryToolsError:
            # The first error is the one to tell.
            _log.warning("the act stays open: registry-tools repair closes it (%s)", act.run_id)
        raise


def shown(version: int | None) -> str:
    """Return a version for a message."""
    return "no version" if version is None else f"version {version}"

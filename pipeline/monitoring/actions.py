"""The actions on drift: retrain a candidate that the gates judge, or roll back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.errors import DataError, PipelineError
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.run_log import CAUSE_TAG, MonitoringRun
from pipeline.params.definitions import CANDIDATE_STAGE, MonitorParams, TrainParams
from pipeline.params.fields import as_text
from pipeline.tracking import runs
from pipeline.training.baseline import TrainingBaseline
from pipeline.training.train import train
from registry_tools.data.schema import quoted_names
from registry_tools.data.tables import read_table
from registry_tools.errors import GateRefused, RegistryToolsError, error_summary
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import promote, rollback
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

# Of a training, what the next one is not to take over: its table, and where it went.
_NOT_REUSED = {"data", "target", "drop", "split", "subset_size", "name", "stage"}


@dataclass(frozen=True)
class ActionResult:
    """The result of an action that was asked for."""

    action: str  # `rollback`, `retrain` or `promote`
    outcome: str  # `done`, `refused`, `failed` or `not started`
    message: str


def roll_back(
    client: MlflowClient, params: MonitorParams, judged: int, run_id: str
) -> tuple[ActionResult, int]:
    """Roll the stage back, if the version that was judged still holds it.

    Return the result, and the version that holds the stage now.
    """
    try:
        done = rollback.rollback(
            client,
            params.name,
            params.stage,
            reason=f"live accuracy fell, monitoring run {run_id}",
            expect_current=judged,
        )
    except RegistryToolsError as error:
        return ActionResult("rollback", "failed", str(error)), judged
    message = f"{params.stage}: version {judged} → {done.version}"
    return ActionResult("rollback", "done", message), done.version


def retrain(
    client: MlflowClient,
    params: MonitorParams,
    training: TrainParams | str,
    analysis: Analysis,
    current_version: int,
    run: MonitoringRun,
) -> list[ActionResult]:
    """Train a candidate as was asked, and have the gates judge it.

    Any error becomes a result and leaves the monitored stage where it is. `current_version` is the
    version that holds it; `training` may be the reason why there can be none.
    """
    if isinstance(training, str):
        return [ActionResult("retrain", "failed", training)]
    held = run.lock_retraining(params.stage, params.cooldown)
    if held is not None:
        return [ActionResult("retrain", "not started", held)]
    try:
        with runs.separate_runs():
            result = train(training)
        run.tag(result.version, CAUSE_TAG, run.run_id)
    except (PipelineError, RegistryToolsError) as error:
        return [ActionResult("retrain", "failed", str(error))]
    except Exception as error:  # noqa: BLE001 - an estimator may raise whatever it likes
        _log.debug("the retraining failed", exc_info=True)
        reason = error_summary(error)
        return [ActionResult("retrain", "failed", reason[:500])]
    trained = ActionResult(
        "retrain",
        "done",
        f"version {result.version} in {result.stage}, "
        f"accuracy {result.metrics['accuracy']:.4f} on {result.holdout_rows} held-out rows",
    )
    reason = f"drift in {analysis.where()[:200]}, monitoring run {run.run_id}"
    return [trained, _evaluate_gates(client, params, result.version, reason, current_version)]


def _evaluate_gates(
    client: MlflowClient, params: MonitorParams, version: int, reason: str, current_version: int
) -> ActionResult:
    try:
        done = promote.promote(
            client,
            ModelRef(params.name, version=version),
            params.stage,
            GateOptions(policy=TrustPolicy.from_environment()),
            reason=reason,
            expect_current=current_version,
            dry_run=not params.promote,
        )
    except GateRefused as error:
        return ActionResult("promote", "refused", str(error))
    except RegistryToolsError as error:
        return ActionResult("promote", "failed", str(error))
    if done.event is None:
        message = (
            f"the gates let it through: registry-tools promote {params.name}@{CANDIDATE_STAGE} "
            f"--to {params.stage} moves the stage, as promote=true would have"
        )
        if not done.verdict.passed:
            return ActionResult("promote", "refused", promote.refusal(done))
        return ActionResult("promote", "not started", f"version {version}: {message}")
    return ActionResult("promote", "done", f"{params.stage}: version {done.previous_version} → {version}")


def training_params(watched: VersionInfo, baseline: TrainingBaseline, name: str, table: str) -> TrainParams:
    """Return how a version was trained, with another table and a split that outlasts growth.

    Raises
    ------
    DataError
        If the table lacks the label or a feature.
    """
    columns = _column_names(Path(table))
    needed = [*baseline.columns, baseline.target]
    lacking = [column for column in needed if column not in columns]
    if lacking:
        what = "label" if lacking[0] == baseline.target else "feature"
        raise DataError(
            f"retrain={table}: there is no column {lacking[0]!r}, a {what} of {name} version "
            f"{watched.version}; it has {quoted_names(columns)}"
        )
    known = {spec.name for spec in fields(TrainParams)} - _NOT_REUSED
    before = _reusable_params({k: v for k, v in watched.params.items() if k in known})
    return TrainParams.from_text(
        before
        | {
            "data": table,
            "target": baseline.target,
            "drop": as_text(tuple(column for column in columns if column not in needed)),
            "split": "hash",
            "name": name,
            "stage": CANDIDATE_STAGE,
        }
    )


def _reusable_params(before: Mapping[str, str]) -> dict[str, str]:
    """Return parameters that a run logged, as they can be given again."""
    texts = {name: text.strip("'") for name, text in before.items()}
    if texts.get("test_size", "").isdigit():  # a number of rows moves rows as a table grows
        del texts["test_size"]
    return texts


def _column_names(path: Path) -> list[str]:
    """Return the names of a table's columns, without its rows where that can be.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if path.suffix.lower() == ".csv" and path.is_file():
        with contextlib.suppress(ValueError):  # which `read_table` reports
            return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    return [str(name) for name in read_table(path).columns]

"""Act on drift: retrain a candidate and run the gates on it, or roll the stage back."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlflow import MlflowClient

from pipeline.errors import DataError, PipelineError
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.run_log import MonitoringRun
from pipeline.params.definitions import CANDIDATE_STAGE, MonitorParams, TrainParams
from pipeline.params.types import as_text
from pipeline.tracking import runs
from pipeline.training.baseline import TrainingBaseline
from pipeline.training.scoring import format_value
from pipeline.training.train import train
from registry_tools.data.schema import quoted_names
from registry_tools.errors import GateRefused, MoveRefused, RegistryToolsError, error_summary
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.files.input_files import find_files
from registry_tools.files.table_source import TableSource, read_columns
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import promote, rollback
from registry_tools.refs import ModelRef
from registry_tools.stats.metric import runs_code

_log = logging.getLogger(__name__)

# Parameters that a retraining sets itself: the table, how to split it, and where the version goes.
_OF_CSV = ("separator", "decimal", "encoding")
_NOT_REUSED = {"data", "target", "drop", "split", "subset_size", "name", "stage"}


@dataclass(frozen=True)
class ActionResult:
    """The result of one action that the user requested."""

    action: str  # `rollback`, `retrain` or `promote`
    outcome: str  # `done`, `refused`, `failed` or `not started`
    message: str


def roll_back(
    client: MlflowClient, params: MonitorParams, judged: int, reason: str
) -> tuple[ActionResult, int]:
    """Roll the stage back, if the monitored version still holds it.

    Parameters
    ----------
    client
        The registry.
    params
        The model and the stage.
    judged
        The number of the monitored version.
    reason
        The reason for the history.

    Returns
    -------
    The result, and the version that now holds the stage.
    """
    try:
        done = rollback.rollback(client, params.name, params.stage, reason=reason, expect_current=judged)
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
    """Train a candidate and run the gates on it.

    An error becomes a result with the outcome `failed`; the monitored stage keeps its version.

    Parameters
    ----------
    client, params
        The registry, and the parameters of the monitoring run.
    training
        The parameters of the training, or the reason why a training is impossible.
    analysis
        The analysis that found drift.
    current_version
        The version that holds the monitored stage.
    run
        The monitoring run, which takes the retraining lock.
    """
    if isinstance(training, str):
        return [ActionResult("retrain", "failed", training)]
    held = run.lock_retraining(params.stage, params.cooldown)
    if held is not None:
        return [ActionResult("retrain", "not started", held)]
    try:
        with runs.separate_runs():
            result = train(training)
        run.tag_retrained(result.version)
    except (PipelineError, RegistryToolsError) as error:
        return [ActionResult("retrain", "failed", str(error))]
    except Exception as error:  # noqa: BLE001 - an estimator may raise any exception
        _log.debug("the retraining failed", exc_info=True)
        return [ActionResult("retrain", "failed", error_summary(error, 500))]
    value = f"{result.metric} {format_value(result.value)} on {result.holdout_rows} held-out rows"
    trained = ActionResult("retrain", "done", f"version {result.version} in {result.stage}, {value}")
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
            GateOptions(trust_policy=TrustPolicy.from_environment()),
            reason=reason,
            expect_current=current_version,
            dry_run=not params.promote,
        )
    except RegistryToolsError as error:
        outcome = "refused" if isinstance(error, GateRefused | MoveRefused) else "failed"
        return ActionResult("promote", outcome, str(error))
    if done.event is not None:
        return ActionResult("promote", "done", f"{params.stage}: version {done.previous_version} → {version}")
    if not done.verdict.passed:
        return ActionResult("promote", "refused", promote.refusal(done))
    command = f"registry-tools promote {params.name}@{CANDIDATE_STAGE} --to {params.stage}"
    how = f"to promote it, run {command}, or set promote=true for the next retraining"
    return ActionResult("promote", "not started", f"version {version}: it passes the gates; {how}")


def training_params(watched: VersionInfo, baseline: TrainingBaseline, name: str, table: str) -> TrainParams:
    """Return the parameters that retrain a version on another table.

    They equal the parameters of the first training except for the table, the name and the stage. Without
    `time`, the split is `hash`, so that each row stays on its side when the table grows.

    Parameters
    ----------
    watched
        The version in the monitored stage.
    baseline
        Its training baseline, with the names of its features and its label.
    name
        The registered model.
    table
        The table to train on, read as the first one if it is of the same kind.

    Raises
    ------
    DataError
        If the table lacks the label, a feature, or a column of groups, times or weights, or if the version
        names a function that the training would call.
    """
    known = TrainParams.model_fields.keys() - _NOT_REUSED
    before = {name: text.strip("'") for name, text in watched.params.items() if name in known}
    source = TableSource(table)
    is_csv = source.is_csv and not find_files(table).is_parquet  # a folder may be either
    for unused in (() if is_csv else _OF_CSV) + (("connection",) if source.query is None else ()):
        before.pop(unused, None)
    how = {name: before[name] for name in (*_OF_CSV, "connection") if name in before}
    columns = read_columns(TrainParams(data=table, target=baseline.target, name=name, **how).source())
    given = {role: before[role] for role in ("group", "weight", "time") if before.get(role, "none") != "none"}
    roles = given.values()
    needed = [*baseline.columns, baseline.target, *roles]
    if lacking := [column for column in needed if column not in columns]:
        what = "label" if lacking[0] == baseline.target else "feature"
        what = "column of groups, times or weights" if lacking[0] in roles else what
        raise DataError(
            f"retrain={table}: the table has no column {lacking[0]!r}, a {what} of {name} version "
            f"{watched.version}; it has {quoted_names(columns)}"
        )
    # The first training may have read the times from a column that is no feature.
    dropped = [
        c for c in columns if c not in needed or (c == given.get("time") and c not in baseline.columns)
    ]
    if "time" not in given:
        before["split"] = "hash"
        if before.get("test_size", "").isdigit():
            del before["test_size"]  # split=hash needs a fraction, not a number of rows
    own = {"target": baseline.target, "task": baseline.task, "drop": as_text(tuple(dropped))}
    params = TrainParams(**before | own | {"data": table, "name": name, "stage": CANDIDATE_STAGE})
    _refuse_functions(params, f"{name} version {watched.version}")
    return params.replace(dtypes={c: kind for c, kind in params.dtypes.items() if c in columns})


def _refuse_functions(params: TrainParams, version: str) -> None:
    """Refuse a function as metric or threshold: any user who can write to the registry can name one."""
    for parameter in ("metric", "threshold"):
        value = getattr(params, parameter)
        if value is not None and runs_code(value):
            raise DataError(
                f"retrain={params.data}: {version} was trained with {parameter}={value}, and the monitor "
                "runs no code that a version names: train it with python -m pipeline train"
            )

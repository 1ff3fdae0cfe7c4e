"""Monitor a stage once: compare production data with the training baselines, then act on drift.

`monitor` reads all inputs, opens a run, analyses the rows of each version, writes the report, and
retrains or rolls back if the parameters ask for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow import MlflowClient

from pipeline.errors import DataError, PipelineError
from pipeline.monitoring import actions, analysis, report
from pipeline.monitoring.actions import ActionResult
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.data import labels, readers
from pipeline.monitoring.data.production_data import ProductionData
from pipeline.monitoring.data.window import CurrentWindow, check_class_names
from pipeline.monitoring.run_log import MonitoringRun
from pipeline.params.definitions import MonitorParams, TrainParams
from pipeline.training import baseline
from pipeline.training.baseline import CategoryProfile, TrainingBaseline
from registry_tools.errors import InputError, NotFound, RegistryToolsError, VerificationError
from registry_tools.mlflow_store import registry, runs
from registry_tools.mlflow_store.client import connect
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import loader
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef
from registry_tools.task import CLASSIFICATION

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MonitorResult:
    """The analysis of the version in the stage, and the results of the actions."""

    params: MonitorParams
    analysis: Analysis
    other_versions: tuple[Analysis, ...]  # one for each other version that predicted rows
    notes: tuple[str, ...]
    actions: tuple[ActionResult, ...]
    experiment: str
    run_id: str
    report: str  # path or address of the HTML report


@dataclass(frozen=True)
class _MonitoringInputs:
    """The inputs, which are all read before the run is opened."""

    client: MlflowClient
    params: MonitorParams
    watched: VersionInfo  # the version in the stage
    baseline: TrainingBaseline  # the baseline of that version
    rows: ProductionData
    labels: pd.DataFrame | None
    training: TrainParams | str | None  # parameters of a retraining, or why it is impossible


def monitor(params: MonitorParams) -> MonitorResult:
    """Compare production data with the training baseline of each version that predicted it.

    The result for the version in the stage decides the verdict and the actions. The report also shows
    the other versions.

    Raises
    ------
    PipelineError, RegistryToolsError
        If the rows, the labels or the baseline cannot be read. In this case no action is taken.
    """
    inputs = _read_inputs(params)
    run = MonitoringRun(inputs.client, params.name, _run_tags(params, inputs.watched))
    try:
        result = _monitor_versions(inputs, run)
    except BaseException as error:
        runs.end_with_error(inputs.client, run.run_id, error)
        raise
    run.link_entry_run()
    return result


def _read_inputs(params: MonitorParams) -> _MonitoringInputs:
    """Read all inputs before a run is opened."""
    assert params.current is not None
    client = connect()
    watched = registry.get_version(client, ModelRef(params.name, stage=params.stage))
    own = _fetch_baseline(client, watched)
    training: TrainParams | str | None = None
    if params.retrain is not None:
        try:
            training = actions.training_params(watched, own, params.name, params.retrain)
        except (PipelineError, RegistryToolsError) as error:
            training = str(error)  # the monitoring itself needs no training
            _log.warning("retraining is impossible: %s", training)
    since = datetime.now(timezone.utc) - params.since if params.since is not None else None
    path = Path(params.current)
    given, names = params.labels, list(own.columns)
    # The metric of another version may need probabilities, even if that of the watched version does not.
    rows = readers.read_production_data(path, params.name, names, own.text_columns, since, given is not None)
    known = labels.read_labels(Path(given), own.target, own.task) if given is not None else None
    return _MonitoringInputs(client, params, watched, own, rows, known, training)


def _monitor_versions(inputs: _MonitoringInputs, run: MonitoringRun) -> MonitorResult:
    """Analyse each version, run the actions, and log the results and the report."""
    params = inputs.params
    findings, notes = _analyse_versions(inputs)
    for found, own, _ in findings:
        run.tag_version(found)
        notes += _untested_features(own)
    main, *others = (found for found, _, _ in findings)
    run.log_analysis(main)
    results = tuple(_run_actions(inputs, main, run))
    head = {name: getattr(params, name) for name in ("name", "stage", "current", "alpha")}
    head |= {"version": main.version, "run_id": run.run_id, "notes": notes}
    run.log_files(lambda folder: report.write_report(folder, head, findings, results))
    run.finish(_verdict_tags(main, results))
    address = run.report_address()
    return MonitorResult(
        params, main, tuple(others), tuple(notes), results, run.experiment, run.run_id, address
    )


def _analyse_versions(inputs: _MonitoringInputs) -> tuple[list[report.Findings], list[str]]:
    """Return the findings of each version, the one in the stage first, and notes on rows and labels."""
    findings: list[report.Findings] = []
    notes = list(inputs.rows.notes)
    watched = inputs.watched.version
    for version, part in inputs.rows.by_version(watched).items():
        try:
            findings.append(_analyse_version(inputs, version, part, notes))
        except (DataError, NotFound, VerificationError) as error:
            if version == watched:
                raise
            notes.append(f"{part.count} rows of version {version}: {error}")
    findings.sort(key=lambda each: (each[0].version != watched, -each[0].version))
    return findings, notes


def _untested_features(own: TrainingBaseline) -> list[str]:
    """Return a note on each feature whose values are not tested."""
    notes = [f"{name} holds dates or times: only its missing values are tested" for name in own.times]
    return notes + [
        f"{name} has more than {len(profile.counts)} categories: their frequencies are not tested"
        for name, profile in own.columns.items()
        if isinstance(profile, CategoryProfile) and profile.others and name not in own.times
    ]


def _fetch_baseline(client: MlflowClient, version: VersionInfo) -> TrainingBaseline:
    """Download and verify the training baseline of a version.

    Raises
    ------
    DataError
        If the version has no baseline.
    VerificationError
        If its files were changed after registration.
    """
    with loader.verified_evidence(client, version, TrustPolicy.from_environment(), baseline.FILES) as folder:
        found = baseline.read_baseline(folder) if folder is not None else None
    if found is None:
        raise DataError(
            f"{version.name} version {version.version} has no training baseline to compare with: only "
            "trainings of this pipeline store one; train a new version with it"
        )
    return found


def _analyse_version(
    inputs: _MonitoringInputs, version: int, rows: ProductionData, notes: list[str]
) -> report.Findings:
    """Compare the rows of one version with its baseline; predict them if they have no predictions."""
    own, params = inputs.baseline, inputs.params
    if version != inputs.watched.version:
        ref = ModelRef(params.name, version=version)
        own = _fetch_baseline(inputs.client, registry.find_version(inputs.client, ref))
    part = rows.window(list(own.columns), own.task, own.needs_probabilities)
    if part.predictions is None and part.rows >= params.min_rows:
        part = _predict_rows(inputs.client, params.name, version, part, own)
    check_class_names(part, version, own)
    live = None
    if inputs.labels is not None and part.rows and part.predictions is not None:
        live = labels.join_labels(inputs.labels, part, own)
        notes += live.notes if not live.rows else ()  # otherwise the analysis has them
    return analysis.analyse_window(version, own, part, live, params.min_rows, params.alpha), own, part


def _predict_rows(
    client: MlflowClient, name: str, version: int, part: CurrentWindow, own: TrainingBaseline
) -> CurrentWindow:
    """Predict rows that have no predictions; a row with a missing required value gets none."""
    model = loader.load(client, ModelRef(name, version=version), TrustPolicy.from_environment())
    required = [column.name for column in model.info.signature or () if column.required]
    table = part.table.to_pandas()
    complete = table[required].replace([np.inf, -np.inf], np.nan).notna().all(axis=1).to_numpy()
    is_class, rows = own.task == CLASSIFICATION, table[complete]
    predicted: Any = []
    scores: Any = []
    try:
        if len(rows):
            predicted = model.predict_names(rows) if is_class else model.predict(rows)
            scores = model.predict_proba(rows).tolist() if own.needs_probabilities else []
    except InputError as error:
        raise DataError(f"{name} version {version} cannot predict the rows: {error}") from error
    convert, kind = (str, pa.string()) if is_class else (float, pa.float64())
    places = pa.array(complete.cumsum() - 1, mask=~complete)  # among the predicted rows
    predictions = pa.chunked_array([pa.array(map(convert, predicted), kind).take(places)])
    scored = None
    if own.needs_probabilities:
        scored = pa.chunked_array([pa.array(scores, pa.list_(pa.float64())).take(places)])
    return replace(part, predictions=predictions, probabilities=scored)


def _run_actions(inputs: _MonitoringInputs, main: Analysis, run: MonitoringRun) -> Sequence[ActionResult]:
    """Run the requested actions: a rollback if the metric got worse, a retraining if there is drift."""
    results: list[ActionResult] = []
    client, params, current_version = inputs.client, inputs.params, inputs.watched.version
    if params.rollback and main.has_worsened and main.performance is not None:
        reason = f"{main.performance.describe_change()}, monitoring run {run.run_id}"
        result, current_version = actions.roll_back(client, params, current_version, reason)
        results.append(result)
    if inputs.training is not None and main.has_drift:
        results += actions.retrain(client, params, inputs.training, main, current_version, run)
    return results


def _run_tags(params: MonitorParams, watched: VersionInfo) -> dict[str, str]:
    given = params.as_text()
    name = given.pop("name")
    run_name = f"{name}/{watched.version} on {Path(str(params.current)).name}"
    return given | {"model": name, "version": str(watched.version), "mlflow.runName": run_name}


def _verdict_tags(main: Analysis, results: Sequence[ActionResult]) -> dict[str, str]:
    done = [f"{result.action}, {result.outcome}: {result.message}" for result in results]
    return {
        "verdict": main.verdict(),
        "where": main.where(),
        **{result.action: f"{result.outcome}: {result.message}" for result in results},
        "mlflow.note.content": "\n\n".join([main.summary(), *done]),
    }

"""Monitor a stage once: compare production data with the training baselines, then act on drift.

`monitor` reads all inputs, opens a run, analyses the rows of each version, writes the report, and
retrains or rolls back if the parameters ask for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

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
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import loader
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef
from registry_tools.task import CLASSIFICATION

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MonitorResult:
    """The analysis of the version in the stage, and the results of the actions."""

    name: str
    stage: str
    version: int
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


@dataclass(frozen=True)
class _VersionFindings:
    """The analysis of one version, with the data that were compared."""

    analysis: Analysis
    baseline: TrainingBaseline
    window: CurrentWindow
    label_notes: tuple[str, ...]  # notes on the labels, if the analysis has no performance with them


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
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        reason = "interrupted" if interrupted else f"{type(error).__name__}: {error}"
        status = "KILLED" if interrupted else "FAILED"
        run.end(status, {"error": reason, "mlflow.note.content": reason})
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
    params, watched = inputs.params, inputs.watched.version
    findings, notes = _analyse_versions(inputs)
    for each in findings:
        run.tag_version(each.analysis)
        notes += _untested_notes(each)
    main = findings[0].analysis
    run.log_analysis(main)
    results = tuple(_run_actions(inputs, main, run))
    head = {
        "name": params.name,
        "stage": params.stage,
        "version": watched,
        "current": str(params.current),
        "run_id": run.run_id,
        "alpha": params.alpha,
        "notes": notes,
    }
    reported = [(each.analysis, each.baseline, each.window) for each in findings]
    run.log_files(lambda folder: report.write_report(folder, head, reported, results))
    run.end("FINISHED", _verdict_tags(main, results))
    return MonitorResult(
        params.name,
        params.stage,
        watched,
        main,
        tuple(each.analysis for each in findings[1:]),
        tuple(notes),
        results,
        run.experiment,
        run.run_id,
        run.report_address(),
    )


def _analyse_versions(inputs: _MonitoringInputs) -> tuple[list[_VersionFindings], list[str]]:
    """Return the findings of each version, the one in the stage first, and notes on skipped rows."""
    findings: list[_VersionFindings] = []
    notes = list(inputs.rows.notes)
    watched = inputs.watched.version
    for version, part in _split_by_version(inputs.rows, watched).items():
        try:
            findings.append(_analyse_version(inputs, version, part))
        except (DataError, NotFound, VerificationError) as error:
            if version == watched:
                raise
            notes.append(f"{part.count} rows of version {version}: {error}")
    findings.sort(key=lambda each: (each.analysis.version != watched, -each.analysis.version))
    return findings, notes


def _untested_notes(findings: _VersionFindings) -> list[str]:
    """Return notes on the features whose values are not tested, and on the labels."""
    times = findings.baseline.times
    notes = [f"{name} holds dates or times: only its missing values are tested" for name in times]
    notes += [
        f"{name} has more than {len(profile.counts)} categories: their frequencies are not tested"
        for name, profile in findings.baseline.columns.items()
        if isinstance(profile, CategoryProfile) and profile.others and name not in times
    ]
    return notes + list(findings.label_notes)


def _split_by_version(rows: ProductionData, watched: int) -> dict[int, ProductionData]:
    """Return rows by version; rows without a version are assigned to the version in the stage."""
    found = rows.by_version()
    own = [*found.pop(watched, ProductionData(())).tables, *found.pop(None, ProductionData(())).tables]
    other_versions = {version: part for version, part in found.items() if version is not None}
    return {watched: ProductionData(tuple(own)), **other_versions}


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


def _analyse_version(inputs: _MonitoringInputs, version: int, rows: ProductionData) -> _VersionFindings:
    """Compare the rows of one version with its baseline; predict them if they have no predictions."""
    own = inputs.baseline
    if version != inputs.watched.version:
        ref = ModelRef(inputs.params.name, version=version)
        own = _fetch_baseline(inputs.client, registry.find_version(inputs.client, ref))
    part = rows.window(list(own.columns), own.task, own.needs_probabilities)
    if part.predictions is None and part.rows >= inputs.params.min_rows:
        part = _predict_rows(inputs.client, inputs.params.name, version, part, own)
    check_class_names(part, version, own)
    live = None
    if inputs.labels is not None and part.rows and part.predictions is not None:
        live = labels.join_labels(inputs.labels, part, own)
    found = analysis.analyse_window(version, own, part, live, inputs.params.min_rows, inputs.params.alpha)
    return _VersionFindings(found, own, part, live.notes if live is not None and not live.rows else ())


def _predict_rows(
    client: MlflowClient, name: str, version: int, part: CurrentWindow, own: TrainingBaseline
) -> CurrentWindow:
    """Predict rows that have no predictions; a row with a missing required value gets none."""
    model = loader.load(client, ModelRef(name, version=version), TrustPolicy.from_environment())
    required = [column.name for column in model.info.signature or () if column.required]
    table = part.table.to_pandas()
    complete = table[required].notna().all(axis=1).to_numpy()
    numbers = table[required].select_dtypes("number")
    complete = complete & np.isfinite(numbers.to_numpy(float, na_value=np.nan)).all(axis=1)
    predictions = pd.Series([None] * len(table), dtype=object)
    is_class = own.task == CLASSIFICATION
    scores: Iterator[list[float]] = iter(())
    try:
        if complete.any():
            if own.needs_probabilities:
                scores = iter(model.predict_proba(table[complete]).tolist())
            found = model.predict_names(table[complete]) if is_class else model.predict(table[complete])
            predictions[complete] = [str(each) if is_class else float(each) for each in found]
    except InputError as error:
        raise DataError(f"{name} version {version} cannot predict the rows: {error}") from error
    predicted = pa.array(predictions, pa.string() if is_class else pa.float64())
    scored = pa.array([next(scores, None) if each else None for each in complete], pa.list_(pa.float64()))
    return CurrentWindow(part.table, pa.chunked_array([predicted]), part.keys, pa.chunked_array([scored]))


def _run_actions(inputs: _MonitoringInputs, main: Analysis, run: MonitoringRun) -> Sequence[ActionResult]:
    """Run the requested actions: a rollback if the metric got worse, a retraining if there is drift."""
    results: list[ActionResult] = []
    client, params = inputs.client, inputs.params
    current_version = inputs.watched.version
    if params.rollback and main.has_worsened and main.performance is not None:
        reason = f"{main.performance.describe_change()}, monitoring run {run.run_id}"
        result, current_version = actions.roll_back(client, params, current_version, reason)
        results.append(result)
    if inputs.training is not None and main.has_drift:
        results += actions.retrain(client, params, inputs.training, main, current_version, run)
    return results


def _run_tags(params: MonitorParams, watched: VersionInfo) -> dict[str, str]:
    given = {name: text for name, text in params.as_text().items() if name not in {"name", "stage"}}
    return given | {
        "model": params.name,
        "stage": params.stage,
        "version": str(watched.version),
        "mlflow.runName": f"{params.name}/{watched.version} on {Path(str(params.current)).name}",
    }


def _verdict_tags(main: Analysis, results: Sequence[ActionResult]) -> dict[str, str]:
    sentences = [
        report.summary_sentence(main),
        *(f"{result.action}, {result.outcome}: {result.message}" for result in results),
    ]
    return {
        "verdict": main.verdict(),
        "where": main.where(),
        **{result.action: f"{result.outcome}: {result.message}" for result in results},
        "mlflow.note.content": "\n\n".join(sentences),
    }

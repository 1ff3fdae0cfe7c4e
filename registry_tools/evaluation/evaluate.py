"""Evaluate a candidate: fetch and verify its files, predict in a clean process, and run the gates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from registry_tools.errors import VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.gates import version as version_gates
from registry_tools.evaluation.gates.comparison import judge_distinct
from registry_tools.evaluation.gates.thresholds import thresholds_gate
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    Predicted,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.run_comparison_gates import GateInputs, run_comparison_gates, run_cost_gates
from registry_tools.evaluation.verdict import GateResult, Verdict, run_gate
from registry_tools.evaluation.version_bundle import (
    VersionBundle,
    check_training_rows,
    fetch_bundle,
    labels_for,
    new_rows,
    task_of,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import describe
from registry_tools.models.manifest import manifest_of
from registry_tools.models.onnx.comparison import OnnxCheck
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.holdout_metrics import classes_of, threshold_metrics
from registry_tools.stats.metric import Metric, choose_metric
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS

if TYPE_CHECKING:
    from mlflow import MlflowClient


def evaluate(
    client: MlflowClient,
    candidate: VersionInfo,
    champion: VersionInfo | None,
    options: GateOptions,
    onnx_file: Path | None = None,
) -> Verdict:
    """Run all gates on a candidate and return the verdict; record and move nothing.

    With `options.onnx`, the ONNX file is written to `onnx_file`, unless one is stored with the candidate.
    """
    with ExitStack() as files:
        bundle = fetch_bundle(client, candidate, options.trust_policy, files)
        other = fetch_bundle(client, champion, options.trust_policy, files) if champion is not None else None
        if options.onnx and bundle.onnx is not None:
            onnx_file = bundle.onnx
        return Verdict(tuple(_run_gates(bundle, other, options, onnx_file)))


def _run_gates(
    bundle: VersionBundle, champion: VersionBundle | None, options: GateOptions, onnx_file: Path | None
) -> Iterator[GateResult]:
    """Yield the results in order; if a gate refuses, the gates that depend on it do not run."""
    integrity = _run_integrity_gate(bundle, options.trust_policy)
    yield integrity
    if not integrity.passed:
        return  # never load files that differ from the manifest
    yield run_gate("signature", _run_signature_gate, bundle, champion)
    both = [bundle] if champion is None else [bundle, champion]
    holdout, new = bundle.holdout, np.empty(0, bool)
    if options.eval_data is not None:
        holdout = options.eval_data.rows_for(each.folder for each in both)
    if holdout is not None:
        # If the training table repeats rows, the holdout can contain training rows of the candidate too.
        new = np.logical_and.reduce([new_rows(holdout, each) for each in both])
    predictions, champion_predictions = _predict(bundle, champion, holdout, new, options, onnx_file)
    yield run_gate("predictions", _run_predictions_gate, bundle, predictions)
    if isinstance(predictions, VerificationError):
        return
    if predictions.output_fault is not None:
        gate = "outputs" if predictions.regressor else "classes"
        yield GateResult(gate, False, f"{bundle.title} {predictions.output_fault}")
        return
    if options.onnx:
        yield run_gate("onnx", _run_onnx_gate, bundle, predictions)
    task = task_of(predictions, bundle.evaluation)
    metric, note = _choose_metric(bundle, champion, options.metric, task)
    try:
        labelled = _labelled_rows(bundle, holdout, options, task)
    except VerificationError as error:
        yield GateResult("holdout", False, str(error))
        return
    inputs = GateInputs(options, metric, bundle, champion, labelled, new, predictions, champion_predictions)
    if options.minimum or options.maximum:
        yield run_gate("thresholds", _run_thresholds_gate, inputs)
    yield run_gate("clean_holdout", _run_clean_holdout_gate, inputs)
    for result in run_comparison_gates(inputs):
        noted = note and result.gate == "champion"
        yield replace(result, message=f"{result.message}; {note}") if noted else result
    yield from run_cost_gates(inputs)


def _predict(
    bundle: VersionBundle,
    champion: VersionBundle | None,
    holdout: Holdout | None,
    new: npt.NDArray[np.bool_],
    options: GateOptions,
    onnx_file: Path | None = None,
) -> tuple[Predicted, Predicted | None]:
    """Predict with the candidate and then with the champion, which predicts new rows, in a clean process."""
    assert bundle.folder is not None
    tables, timed, jobs = {}, None, []
    if bundle.recorded is not None:
        tables["example"] = bundle.recorded.rows
    if holdout is not None and len(holdout.labels):
        tables["holdout"] = holdout.rows
        if options.max_latency_ms is not None or options.max_latency_ratio is not None:
            timed = holdout.rows.head(1)
        if champion is not None and champion.folder is not None:
            own = {"compared": holdout.take(new).rows} if new.any() else {}
            row = timed if options.max_latency_ratio is not None else None
            if own or row is not None:
                jobs.append(PredictJob(champion.folder, own, options.trust_policy, row))
    is_compared = options.onnx and "holdout" in tables and (bundle.onnx is not None or not bundle.signed)
    onnx = onnx_file if is_compared else None
    candidate = PredictJob(bundle.folder, tables, options.trust_policy, timed, onnx)
    predictions, *of_champion = predict_in_clean_process([candidate, *jobs])
    if not isinstance(predictions, VerificationError) and predictions.probabilities.get("holdout"):
        probabilities = np.asarray(predictions.probabilities["holdout"], dtype=float)
        fault = version_gates.probabilities_fault(probabilities, predictions.classes)
        predictions = VerificationError(fault) if fault is not None else predictions
    return predictions, of_champion[0] if of_champion else None


def _labelled_rows(
    bundle: VersionBundle, holdout: Holdout | None, options: GateOptions, task: str
) -> Holdout:
    """Return the holdout with labels for the task; refuse a missing or an empty holdout."""
    if holdout is None:
        raise VerificationError(
            f"{bundle.title} was logged without held-out rows: give --eval-data FILE --target COLUMN"
        )
    if not len(holdout.labels):
        raise VerificationError("there are no rows to evaluate on: give --eval-data with rows")
    where = f"the held-out rows of {bundle.title}"
    if options.eval_data is not None:
        where = f"--target {options.eval_data.target} of {options.eval_data.path}"
    return labels_for(task, holdout, where)


def _choose_metric(
    bundle: VersionBundle, champion: VersionBundle | None, given: str | None, task: str
) -> tuple[Metric, str]:
    """Return the metric to compare by, and a note if the candidate was trained by another one.

    The metric of the champion decides, so that no candidate chooses by which metric it is judged.
    """
    own, held = (_recorded_metric(each, task) for each in (bundle, champion))
    metric, note = choose_metric(given, held or own, task)
    own = own or DEFAULT_METRICS[task]
    if given is None and not note and metric.name != own:
        note = (
            f"compared by {metric.name}, the metric of the champion; --metric {own} compares by the "
            "candidate's"
        )
    return metric, note


def _recorded_metric(bundle: VersionBundle | None, task: str) -> str | None:
    """Return the metric that the training chose, unless it is of another task than the model."""
    evaluation = bundle.evaluation if bundle is not None else None
    return evaluation.metric if evaluation is not None and evaluation.task == task else None


def evaluate_rollback(client: MlflowClient, version: VersionInfo, trust_policy: TrustPolicy) -> Verdict:
    """Run the gates of a rollback on the version to roll back to."""
    with ExitStack() as files:
        bundle = fetch_bundle(client, version, trust_policy, files)
        integrity = _run_integrity_gate(bundle, trust_policy)
        if not integrity.passed:
            return Verdict((integrity,))
        predictions, _ = _predict(
            bundle, None, None, np.empty(0, bool), GateOptions(trust_policy=trust_policy)
        )
        return Verdict((integrity, run_gate("predictions", _run_predictions_gate, bundle, predictions)))


def _run_integrity_gate(bundle: VersionBundle, trust_policy: TrustPolicy) -> GateResult:
    files = len(manifest_of(bundle.folder)) if bundle.folder is not None else 0
    has_manifest = bundle.version.digest is not None
    return version_gates.integrity_gate(
        bundle.faults, files, has_manifest, trust_policy.public_key, bundle.evidence_files
    )


def _run_signature_gate(bundle: VersionBundle, champion: VersionBundle | None) -> GateResult:
    assert bundle.folder is not None
    folder = champion.folder if champion is not None else None
    return version_gates.signature_gate(
        describe(bundle.folder).inputs, describe(folder).inputs if folder is not None else None
    )


def _run_predictions_gate(bundle: VersionBundle, predictions: Predicted) -> GateResult:
    if isinstance(predictions, VerificationError):
        raise predictions
    if bundle.recorded is None:
        return GateResult("predictions", True, "the model loads; no predictions are recorded")
    return version_gates.predictions_gate(
        vars(bundle.recorded),
        {
            "predictions": predictions.predictions["example"],
            "probabilities": predictions.probabilities["example"],
        },
    )


def _run_onnx_gate(bundle: VersionBundle, predictions: IsolatedPredictions) -> GateResult:
    if bundle.signed and bundle.onnx is None:
        raise VerificationError(
            f"{bundle.title} is signed, and an ONNX file would change the signed manifest: promote a version "
            "with --onnx before you sign it"
        )
    if predictions.onnx is None:
        raise VerificationError(f"{bundle.title} has no held-out rows to compare an ONNX file on")
    if "error" in predictions.onnx:
        raise VerificationError(predictions.onnx["error"])
    return version_gates.onnx_gate(OnnxCheck(**predictions.onnx), bundle.onnx is not None)


def _run_thresholds_gate(inputs: GateInputs) -> GateResult:
    from registry_tools.mlflow_store import thresholds  # MLflow's evaluation is slow to import

    options, task, outcomes = inputs.options, inputs.metric.task, inputs.outcomes()

    def judge(mask: npt.NDArray[np.bool_]) -> GateResult:
        rows = outcomes.take(mask)
        if task == CLASSIFICATION and len(classes := classes_of(rows)[1]) < 2:
            why = f"the only class is {classes[0]!r}: metrics need rows of a second class"
            return GateResult("thresholds", False, why)
        metrics = threshold_metrics(rows, task, {*options.minimum, *options.maximum})
        return thresholds_gate(metrics, options.minimum, options.maximum, thresholds.failed_thresholds)

    return judge_distinct(judge, inputs.holdout.distinct)


def _run_clean_holdout_gate(inputs: GateInputs) -> GateResult:
    training, holdout = inputs.candidate.training_rows, inputs.holdout
    if training is None:
        return GateResult("clean_holdout", True, "the training rows of the candidate are not recorded")
    check_training_rows(holdout, inputs.candidate)
    return version_gates.clean_holdout_gate(training.hash(holdout.rows), training.hashes, holdout.duplicates)

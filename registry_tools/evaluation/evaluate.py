"""Evaluate a candidate: fetch and verify its files, predict in a clean process, and run the gates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from registry_tools.errors import VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.gates import version as version_gates
from registry_tools.evaluation.gates.comparison import judge_distinct
from registry_tools.evaluation.gates.thresholds import metrics_fault, thresholds_gate
from registry_tools.evaluation.isolated_predict import IsolatedPredictions
from registry_tools.evaluation.run_comparison_gates import (
    GIVE_EVAL_DATA,
    predict_for_gates,
    run_comparison_gates,
    run_cost_gates,
)
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.evaluation.version_bundle import (
    VersionBundle,
    as_outcomes,
    fetch_bundle,
    labels_for,
    task_of,
    unknown_training_rows,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import describe
from registry_tools.models.manifest import manifest_of
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.holdout_metrics import classes_of, threshold_metrics
from registry_tools.stats.metric import Metric, choose_metric
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS

if TYPE_CHECKING:
    from mlflow import MlflowClient


def evaluate(
    client: MlflowClient, candidate: VersionInfo, champion: VersionInfo | None, options: GateOptions
) -> Verdict:
    """Run all gates on a candidate and return the verdict; record and move nothing."""
    with ExitStack() as files:
        bundle = fetch_bundle(client, candidate, options.policy, files)
        champion_bundle = None
        if champion is not None:
            champion_bundle = fetch_bundle(client, champion, options.policy, files)
        holdout = bundle.holdout
        if options.eval_data is not None:
            folders = [each.folder for each in (bundle, champion_bundle) if each is not None]
            holdout = options.eval_data.rows_for(folders)
        return Verdict(tuple(_run_gates(bundle, champion_bundle, holdout, options)))


def _run_gates(
    bundle: VersionBundle, champion: VersionBundle | None, holdout: Holdout | None, options: GateOptions
) -> Iterator[GateResult]:
    """Yield the results in order; if a gate refuses, the gates that depend on it do not run."""
    integrity = _run_integrity_gate(bundle, options.policy)
    yield integrity
    if not integrity.passed:
        return  # never load files that differ from the manifest
    yield _run_signature_gate(bundle, champion)
    inputs = predict_for_gates(bundle, champion, holdout, options)
    predictions = inputs.predictions
    yield _run_predictions_gate(bundle, predictions)
    if isinstance(predictions, VerificationError):
        return
    title = f"{bundle.version.name} version {bundle.version.version}"
    if predictions.output_fault is not None:
        gate = "outputs" if predictions.regressor else "classes"
        yield GateResult(gate, False, f"{title} {predictions.output_fault}")
        return
    task = task_of(predictions, bundle.evaluation)
    metric, note = _choose_metric(bundle, champion, options.metric, task)
    if holdout is None or inputs.compared is None:
        reason = "was logged without held-out rows: give --eval-data FILE --target COLUMN"
        yield GateResult("holdout", False, f"{title} {reason}")
        return
    if not len(holdout.labels):
        yield GateResult("holdout", False, "there are no rows to evaluate on: give --eval-data with rows")
        return
    try:
        held_out, compared = (
            labels_for(task, rows, _rows_title(title, options)) for rows in (holdout, inputs.compared)
        )
    except VerificationError as error:
        yield GateResult("holdout", False, str(error))
        return
    if options.minimum or options.maximum:
        yield _run_thresholds_gate(held_out, predictions, options, task)
    yield _run_clean_holdout_gate(bundle, holdout)
    for result in run_comparison_gates(inputs, predictions, compared, metric):
        noted = note and result.gate == "champion"
        yield replace(result, message=f"{result.message}; {note}") if noted else result
    yield from run_cost_gates(inputs, predictions)


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


def _rows_title(title: str, options: GateOptions) -> str:
    if options.eval_data is None:
        return f"the held-out rows of {title}"
    return f"--target {options.eval_data.target} of {options.eval_data.path}"


def evaluate_rollback(client: MlflowClient, version: VersionInfo, policy: TrustPolicy) -> Verdict:
    """Run the gates of a rollback on the version to roll back to."""
    with ExitStack() as files:
        bundle = fetch_bundle(client, version, policy, files)
        integrity = _run_integrity_gate(bundle, policy)
        if not integrity.passed:
            return Verdict((integrity,))
        inputs = predict_for_gates(bundle, None, None, GateOptions(policy=policy))
        return Verdict((integrity, _run_predictions_gate(bundle, inputs.predictions)))


def _run_integrity_gate(bundle: VersionBundle, policy: TrustPolicy) -> GateResult:
    files = len(manifest_of(bundle.folder)) if bundle.folder is not None else 0
    has_manifest = bundle.version.digest is not None
    return version_gates.integrity_gate(
        bundle.faults, files, has_manifest, policy.public_key, bundle.evidence_files
    )


def _run_signature_gate(bundle: VersionBundle, champion: VersionBundle | None) -> GateResult:
    assert bundle.folder is not None
    try:
        folder = champion.folder if champion is not None else None
        return version_gates.signature_gate(
            describe(bundle.folder).inputs, describe(folder).inputs if folder is not None else None
        )
    except VerificationError as error:
        return GateResult("signature", False, str(error))


def _run_predictions_gate(
    bundle: VersionBundle, predictions: IsolatedPredictions | VerificationError
) -> GateResult:
    if isinstance(predictions, VerificationError):
        return GateResult("predictions", False, str(predictions))
    given = predictions.probabilities.get("holdout")
    if given is not None:
        fault = version_gates.probabilities_fault(np.asarray(given, dtype=float), predictions.classes)
        if fault is not None:
            return GateResult("predictions", False, fault)
    recorded = bundle.recorded
    if recorded is None:
        return GateResult("predictions", True, "the model loads; no predictions are recorded")
    probabilities = recorded.probabilities
    return version_gates.predictions_gate(
        {
            "predictions": recorded.predictions.tolist(),
            "probabilities": None if probabilities is None else probabilities.tolist(),
        },
        {
            "predictions": predictions.predictions["example"],
            "probabilities": predictions.probabilities["example"],
        },
    )


def _run_thresholds_gate(
    holdout: Holdout, predictions: IsolatedPredictions, options: GateOptions, task: str
) -> GateResult:
    from registry_tools.mlflow_store import thresholds  # MLflow's evaluation is slow to import

    try:
        outcomes = as_outcomes(holdout.labels, predictions, "holdout", task)
    except VerificationError as error:
        return GateResult("thresholds", False, f"the candidate {error}: {GIVE_EVAL_DATA}")

    def judge(mask: npt.NDArray[np.bool_]) -> GateResult:
        rows = outcomes.take(mask)
        if task == CLASSIFICATION:
            probabilities, classes = classes_of(rows)
            fault = metrics_fault(probabilities, len(rows.labels), classes)
            if fault is not None:
                return GateResult("thresholds", False, fault)
        metrics = threshold_metrics(rows, task, {*options.minimum, *options.maximum})
        return thresholds_gate(metrics, options.minimum, options.maximum, thresholds.failed_thresholds)

    return judge_distinct(judge, holdout.distinct)


def _run_clean_holdout_gate(bundle: VersionBundle, holdout: Holdout) -> GateResult:
    if bundle.training_rows is None:
        return GateResult("clean_holdout", True, "the training rows of the candidate are not recorded")
    unknown = unknown_training_rows(holdout, bundle)
    if unknown is not None:
        return GateResult("clean_holdout", False, unknown)
    training = bundle.training_rows
    return version_gates.clean_holdout_gate(training.hash(holdout.rows), training.hashes, holdout.duplicates)

"""Evaluate a candidate: fetch and verify its files, predict in a clean process, and run the gates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from registry_tools.errors import VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.gates import version as version_gates
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
    fetch_bundle,
    predictions_as_labels,
    unknown_training_rows,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import describe
from registry_tools.models.manifest import manifest_of
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.metrics import classification_metrics

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
    if predictions.class_fault is not None:
        yield GateResult("classes", False, f"{title} {predictions.class_fault}")
        return
    if holdout is None or inputs.compared is None:
        reason = "was logged without held-out rows: give --eval-data FILE --target COLUMN"
        yield GateResult("holdout", False, f"{title} {reason}")
        return
    if not len(holdout.labels):
        yield GateResult("holdout", False, "there are no rows to evaluate on: give --eval-data with rows")
        return
    if options.minimum or options.maximum:
        yield _run_thresholds_gate(holdout, predictions, options)
    yield _run_clean_holdout_gate(bundle, holdout)
    yield from run_comparison_gates(inputs, predictions, inputs.compared)
    yield from run_cost_gates(inputs, predictions)


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
    holdout: Holdout, predictions: IsolatedPredictions, options: GateOptions
) -> GateResult:
    from registry_tools.mlflow_store import thresholds  # MLflow's evaluation is slow to import

    try:
        predicted = predictions_as_labels(holdout.labels, predictions, "holdout")
    except VerificationError as error:
        return GateResult("thresholds", False, f"the candidate {error}: {GIVE_EVAL_DATA}")
    present = {*holdout.labels.tolist(), *predicted.tolist()}
    classes = predictions.classes
    names = classes if present <= set(classes) else sorted(present)
    given = predictions.probabilities["holdout"]
    probabilities = np.asarray(given, dtype=float) if given is not None and names is classes else None
    fault = metrics_fault(probabilities, len(holdout.labels), names)
    if fault is not None:
        return GateResult("thresholds", False, fault)
    code_of = {name: code for code, name in enumerate(names)}
    metrics = classification_metrics(
        np.array([code_of[name] for name in holdout.labels]),
        np.array([code_of[name] for name in predicted]),
        probabilities,
        names,
    )
    metrics["recall"] = min(v for k, v in metrics.items() if k.startswith("recall_"))
    return thresholds_gate(metrics, options.minimum, options.maximum, thresholds.failed_thresholds)


def _run_clean_holdout_gate(bundle: VersionBundle, holdout: Holdout) -> GateResult:
    if bundle.training_rows is None:
        return GateResult("clean_holdout", True, "the training rows of the candidate are not recorded")
    unknown = unknown_training_rows(holdout, bundle)
    if unknown is not None:
        return GateResult("clean_holdout", False, unknown)
    training = bundle.training_rows
    return version_gates.clean_holdout_gate(training.hash(holdout.rows), training.hashes, holdout.duplicates)

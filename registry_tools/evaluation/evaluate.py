"""Evaluate a candidate: fetch evidence, verify models, predict with both, and run the gates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from registry_tools.errors import VerificationError
from registry_tools.evaluation import gates
from registry_tools.evaluation.eval_data import hash_model_columns
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.evaluation.version_bundle import (
    VersionBundle,
    exclude_training_rows,
    fetch_bundle,
    predictions_as_labels,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import describe
from registry_tools.models.manifest import manifest_of
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.metrics import classification_metrics
from registry_tools.stats.paired_test import compare_predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_GIVE_EVAL_DATA = "give --eval-data with labels that both versions predict"


def evaluate(
    client: MlflowClient, candidate: VersionInfo, champion: VersionInfo | None, options: GateOptions
) -> Verdict:
    """Run all gates on a candidate; nothing is moved or recorded."""
    with ExitStack() as files:
        bundle = fetch_bundle(client, candidate, options.policy, files)
        champion_bundle = None
        if champion is not None:
            champion_bundle = fetch_bundle(client, champion, options.policy, files)
        holdout = bundle.holdout
        if options.eval_data is not None:
            holdout = hash_model_columns(options.eval_data, bundle)
        return Verdict(tuple(_run_gates(bundle, champion_bundle, holdout, options)))


def _run_gates(
    bundle: VersionBundle, champion: VersionBundle | None, holdout: Holdout | None, options: GateOptions
) -> Iterator[GateResult]:
    """Yield the results in order; a gate that depends on one that refused is not run."""
    integrity = _run_integrity_gate(bundle, options.policy)
    yield integrity
    if not integrity.passed:
        return  # what differs from the manifest is not loaded
    yield _run_signature_gate(bundle, champion)
    # Where a table repeats its rows, the candidate was trained on some that are held out.
    compared = exclude_training_rows(exclude_training_rows(holdout, champion), bundle)
    predictions, champion_predictions = _predict(bundle, champion, holdout, compared, options)
    yield _run_predictions_gate(bundle, predictions)
    if isinstance(predictions, VerificationError):
        return
    if holdout is None or compared is None:
        yield GateResult(
            "holdout",
            False,
            f"{bundle.version.name} version {bundle.version.version} was logged without held-out "
            "rows: give --eval-data FILE --target COLUMN",
        )
        return
    if options.minimum or options.maximum:
        yield _run_thresholds_gate(holdout, predictions, options)
    yield _run_clean_holdout_gate(bundle, holdout)
    yield _run_champion_gate(champion, holdout, compared, predictions, champion_predictions, options)
    if options.max_latency_ms is not None:
        yield gates.latency_gate(predictions.milliseconds, options.max_latency_ms)


def evaluate_rollback(client: MlflowClient, version: VersionInfo, policy: TrustPolicy) -> Verdict:
    """Run the gates of a rollback on a version that held the stage before."""
    with ExitStack() as files:
        bundle = fetch_bundle(client, version, policy, files)
        integrity = _run_integrity_gate(bundle, policy)
        if not integrity.passed:
            return Verdict((integrity,))
        predictions, _ = _predict(bundle, None, None, None, GateOptions(policy=policy))
        return Verdict((integrity, _run_predictions_gate(bundle, predictions)))


def _run_integrity_gate(bundle: VersionBundle, policy: TrustPolicy) -> GateResult:
    files = len(manifest_of(bundle.folder)) if bundle.folder is not None else 0
    has_manifest = bundle.version.digest is not None
    return gates.integrity_gate(bundle.faults, files, has_manifest, policy.public_key)


def _run_signature_gate(bundle: VersionBundle, champion: VersionBundle | None) -> GateResult:
    assert bundle.folder is not None
    try:
        folder = champion.folder if champion is not None else None
        return gates.signature_gate(
            describe(bundle.folder).inputs, describe(folder).inputs if folder is not None else None
        )
    except VerificationError as error:
        return GateResult("signature", False, str(error))


def _predict(
    bundle: VersionBundle,
    champion: VersionBundle | None,
    holdout: Holdout | None,
    compared: Holdout | None,
    options: GateOptions,
) -> tuple[IsolatedPredictions | VerificationError, IsolatedPredictions | VerificationError | None]:
    """Predict with the candidate in a clean process, and then with the champion."""
    tables: dict[str, pd.DataFrame] = {}
    if bundle.recorded is not None:
        tables["example"] = bundle.recorded.rows
    if holdout is not None:
        tables["holdout"] = holdout.rows
    if compared is not None and len(compared.labels):
        tables["compared"] = compared.rows
    timed = "holdout" if options.max_latency_ms is not None and holdout is not None else None
    assert bundle.folder is not None
    jobs = [PredictJob(bundle.folder, tables, options.policy, timed)]
    if champion is not None and champion.folder is not None and "compared" in tables:
        rows = {"compared": tables["compared"]}
        jobs.append(PredictJob(champion.folder, rows, options.policy))
    results = predict_in_clean_process(jobs)
    return results[0], results[1] if len(results) > 1 else None


def _run_predictions_gate(
    bundle: VersionBundle, predictions: IsolatedPredictions | VerificationError
) -> GateResult:
    if isinstance(predictions, VerificationError):
        return GateResult("predictions", False, str(predictions))
    recorded = bundle.recorded
    if recorded is None:
        return GateResult("predictions", True, "it loads; there are no recorded predictions")
    probabilities = recorded.probabilities
    return gates.predictions_gate(
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
    from registry_tools.evaluation import thresholds  # MLflow's evaluation takes a while to import

    try:
        predicted = predictions_as_labels(holdout.labels, predictions, "holdout")
    except VerificationError as error:
        return GateResult("thresholds", False, f"a version {error}: {_GIVE_EVAL_DATA}")
    present = {*holdout.labels.tolist(), *predicted.tolist()}
    classes = predictions.classes
    names = classes if present <= set(classes) else sorted(present)
    code_of = {name: code for code, name in enumerate(names)}
    probabilities = predictions.probabilities["holdout"]
    metrics = classification_metrics(
        np.array([code_of[name] for name in holdout.labels]),
        np.array([code_of[name] for name in predicted]),
        np.asarray(probabilities) if probabilities and names is classes else None,
        names,
    )
    metrics["recall"] = min(v for k, v in metrics.items() if k.startswith("recall_"))
    return gates.thresholds_gate(metrics, options.minimum, options.maximum, thresholds.failed_thresholds)


def _run_clean_holdout_gate(bundle: VersionBundle, holdout: Holdout) -> GateResult:
    if bundle.training_rows is None:
        return GateResult("clean_holdout", True, "it is not recorded which rows the candidate was trained on")
    return gates.clean_holdout_gate(holdout.hashes, bundle.training_rows, holdout.duplicates)


def _run_champion_gate(
    champion: VersionBundle | None,
    holdout: Holdout,
    compared: Holdout,
    predictions: IsolatedPredictions,
    champion_predictions: IsolatedPredictions | VerificationError | None,
    options: GateOptions,
) -> GateResult:
    if champion is None:
        return GateResult("champion", True, "no champion")
    number = champion.version.version
    if champion.faults:
        return GateResult("champion", False, f"the champion, version {number}: {champion.faults[0]}")
    excluded = len(holdout.labels) - len(compared.labels)
    refusal = gates.too_few_rows(len(compared.labels), excluded)
    if refusal is not None:
        return refusal
    if not isinstance(champion_predictions, IsolatedPredictions):
        message = f"the champion, version {number}: {champion_predictions}"
        if options.eval_data is None:
            message += "; to compare on rows that both take, give --eval-data FILE --target COLUMN"
        return GateResult("champion", False, message)
    try:
        comparison = compare_predictions(
            compared.labels,
            predictions_as_labels(compared.labels, predictions, "compared"),
            predictions_as_labels(compared.labels, champion_predictions, "compared"),
        )
    except VerificationError as error:
        return GateResult("champion", False, f"a version {error}: {_GIVE_EVAL_DATA}")
    return gates.champion_gate(
        comparison, options.rule, options.margin, excluded if champion.training_rows is not None else None
    )

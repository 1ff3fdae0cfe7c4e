"""Adopt a version that was registered without evidence: make evidence from labelled rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.gates.comparison import MINIMUM_ROWS, baseline_gate, judge_distinct
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.version_bundle import predictions_as_labels
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import DIGEST_TAG, EVIDENCE_DIGEST_TAG, VersionInfo
from registry_tools.models import artifacts, evidence, manifest
from registry_tools.models.evidence import Holdout, RecordedPredictions
from registry_tools.models.formats import describe
from registry_tools.models.loader import verified_evidence, verified_files
from registry_tools.models.manifest import MANIFEST_FILE, VersionManifest
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RECORDED_ROWS = 20


@dataclass(frozen=True)
class Adoption:
    """The evidence of an adopted version; `made` is False if it existed already."""

    name: str
    version: int
    digest: str
    evidence_digest: str
    holdout_rows: int
    recorded_rows: int
    accuracy: float
    baseline_accuracy: float  # the accuracy of always predicting the commonest class
    made: bool


def adopt(
    client: MlflowClient, ref: ModelRef, eval_data: EvalData, policy: TrustPolicy | None = None
) -> Adoption:
    """Make evidence for a version from labelled rows that it was not trained on.

    The rows become the holdout of the version, and its predictions for some of them are recorded. The
    model files do not change. Nothing is written unless the version predicts these labels better than
    chance. No record shows the training rows, so the caller vouches that the holdout has none of them.

    Raises
    ------
    UnsupportedOperation
        If the version has no run or no signature, is a regressor, or already has other evidence.
    VerificationError
        If the files differ from their digest, or the version is not significantly better than always
        predicting the commonest label.
    InputError
        If there are too few rows, or JSON cannot represent their values.
    """
    policy = policy or TrustPolicy.from_environment()
    version = _version_with_run(client, ref)
    with (
        verified_files(client, version, policy) as model,
        # Not verified here: `_check_existing` compares the files with the new evidence.
        artifacts.evidence_files(client, version) as existing,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(scratch)
        _check_model(version, model, existing)
        rows = _model_rows(eval_data, model, version)
        predicted = _predict(version, model, rows, policy)
        quality = _check_labels(version, rows, predicted, eval_data.target)
        recorded = _write_evidence(folder, version, rows, eval_data.target, predicted)
        made = manifest.write_manifest(folder, manifest.manifest_of(model))
        if existing is not None:
            _check_existing(existing, made, version)
        digests = {
            DIGEST_TAG: manifest.digest_of(made.model),
            EVIDENCE_DIGEST_TAG: manifest.digest_of(made.evidence),
        }
        is_new = not digests.items() <= version.tags.items()
        if is_new:
            _store(client, version, folder, digests)
    return Adoption(
        name=version.name,
        version=version.version,
        digest=digests[DIGEST_TAG],
        evidence_digest=digests[EVIDENCE_DIGEST_TAG],
        holdout_rows=len(rows.labels),
        recorded_rows=recorded,
        accuracy=quality["accuracy"],
        baseline_accuracy=quality["baseline_accuracy"],
        made=is_new,
    )


def _version_with_run(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    version = registry.find_version(client, ref)
    if version.run_id is None or registry.find_run(client, version.run_id) is None:
        raise UnsupportedOperation(
            f"{_title(version)} has no run that could store its evidence: log the model within "
            "mlflow.start_run(), register it from there, and adopt that version"
        )
    return version


def _check_model(version: VersionInfo, model: Path, existing: Path | None) -> None:
    """Refuse a version that cannot be promoted, or that has evidence from its training."""
    if existing is not None and evidence.read_training_rows(existing) is not None:
        raise UnsupportedOperation(
            f"{_title(version)} already has evidence from its training: there is nothing to adopt"
        )
    if describe(model).inputs is None:
        raise UnsupportedOperation(
            f"{_title(version)} has no signature with the names and types of its columns, which a promotion "
            "needs: log the model again with signature=mlflow.models.infer_signature(X), and adopt that "
            "version"
        )


def _model_rows(eval_data: EvalData, model: Path, version: VersionInfo) -> Holdout:
    """Return the rows with the columns of the signature, or all columns if it has no column names."""
    rows = eval_data.rows_for([model])
    columns = [column.name for column in describe(model).signature or () if column.name in rows.rows]
    if columns:
        rows = replace(rows, rows=rows.rows[columns])
    distinct = int(np.sum(rows.distinct))
    if distinct < MINIMUM_ROWS:
        count = f"{distinct} rows" if distinct == len(rows.labels) else f"{distinct} distinct rows"
        raise InputError(
            f"{eval_data.path} has {count}, {MINIMUM_ROWS} are needed to adopt {_title(version)}: give "
            "more rows with --eval-data"
        )
    return rows


def _example(rows: Holdout) -> pd.DataFrame:
    """Return the rows to record predictions for, spread evenly over the holdout."""
    places = np.unique(np.linspace(0, len(rows.labels) - 1, _RECORDED_ROWS).astype(int))
    return rows.rows.iloc[places].reset_index(drop=True)


def _predict(version: VersionInfo, model: Path, rows: Holdout, policy: TrustPolicy) -> IsolatedPredictions:
    (predicted,) = predict_in_clean_process(
        [PredictJob(model, {"holdout": rows.rows, "example": _example(rows)}, policy)]
    )
    if not isinstance(predicted, IsolatedPredictions):
        raise VerificationError(f"{_title(version)}: {predicted}")
    if predicted.regressor:
        raise UnsupportedOperation(
            f"{_title(version)} is a regressor: the gates compare classes and could not use its evidence; "
            "adopt classifiers only"
        )
    if predicted.class_fault is not None:
        raise UnsupportedOperation(f"{_title(version)} {predicted.class_fault}")
    return predicted


def _check_labels(
    version: VersionInfo, rows: Holdout, predicted: IsolatedPredictions, target: str
) -> Mapping[str, float]:
    """Refuse labels that the version does not predict; return the metrics of `baseline` on all rows.

    Evidence is written once. If the labels came from the wrong column, all later checks would be wrong.
    """
    try:
        predictions = predictions_as_labels(rows.labels, predicted, "holdout")
    except VerificationError as error:
        raise VerificationError(
            f"{_title(version)} {error}: give --target the column with the labels that it predicts"
        ) from None
    gate = judge_distinct(lambda mask: baseline_gate(rows.labels[mask], predictions[mask]), rows.distinct)
    if not gate.passed:
        names = ("rows", "accuracy", "baseline_accuracy", "p_better")
        count, accuracy, baseline, p = (gate.metrics[name] for name in names)
        raise VerificationError(
            f"{_title(version)} predicts {target!r} with accuracy {accuracy:.4f} on {count:.0f} rows, not "
            f"significantly better than {baseline:.4f} for always predicting the commonest class "
            f"(p = {p:.3g}); check that --target {target} is the label that it was trained on, or give "
            "more rows"
        )
    return baseline_gate(rows.labels, predictions).metrics


def _write_evidence(
    folder: Path, version: VersionInfo, rows: Holdout, target: str, predicted: IsolatedPredictions
) -> int:
    """Write the holdout and the recorded predictions; return the number of recorded predictions."""
    evidence.write_holdout(folder, rows.rows, pd.Series(rows.labels, name=target))
    example, probabilities = _example(rows), predicted.probabilities["example"]
    try:
        evidence.write_recorded_predictions(
            folder,
            RecordedPredictions(
                example,
                np.asarray(predicted.predictions["example"]),
                None if probabilities is None else np.asarray(probabilities),
            ),
        )
    except TypeError as error:  # such as times, which JSON cannot represent
        raise InputError(f"the rows for {_title(version)} cannot be recorded as JSON: {error}") from error
    return len(example)


def _check_existing(existing: Path, made: VersionManifest, version: VersionInfo) -> None:
    """Refuse a run that holds other evidence, or the evidence of another model."""
    known = manifest.read_manifest(existing)
    if known is not None and known.model != made.model:
        raise UnsupportedOperation(
            f"run {version.run_id} holds the evidence of a model other than {_title(version)}: log each "
            "model in a separate run"
        )
    there = manifest.evidence_of(existing)
    if not there.items() <= made.evidence.items():
        other = sorted(name for name in there if there[name] != made.evidence.get(name))
        raise UnsupportedOperation(
            f"{_title(version)} already has evidence, with another {other[0]}: evidence is written once; "
            "give the same rows, or log the model in a new run and adopt that version"
        )


def _store(client: MlflowClient, version: VersionInfo, folder: Path, digests: dict[str, str]) -> None:
    """Upload the evidence with the manifest last, verify the uploaded files, then set the digests."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == MANIFEST_FILE, path.name)):
        artifacts.add_evidence(client, version, path)
    arrived = replace(version, digest=digests[DIGEST_TAG], tags={**version.tags, **digests})
    with verified_evidence(client, arrived, TrustPolicy()):
        registry.set_tags(client, version, digests)


def _title(version: VersionInfo) -> str:
    return f"{version.name} version {version.version}"

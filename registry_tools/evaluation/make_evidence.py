"""Make the evidence of a model from labelled rows: holdout, recorded predictions, manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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
from registry_tools.mlflow_store.registry import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.models import evidence, manifest
from registry_tools.models.evidence import Holdout, RecordedPredictions
from registry_tools.models.formats import describe
from registry_tools.models.manifest import VersionManifest
from registry_tools.models.trust_policy import TrustPolicy

_RECORDED_ROWS = 20


@dataclass(frozen=True)
class MadeEvidence:
    """Evidence in a folder, and the accuracy that it shows."""

    manifest: VersionManifest
    holdout_rows: int
    recorded_rows: int
    accuracy: float
    baseline_accuracy: float  # of always predicting the commonest class

    @property
    def digests(self) -> dict[str, str]:
        """The tags of a version with this evidence."""
        return {
            DIGEST_TAG: manifest.digest_of(self.manifest.model),
            EVIDENCE_DIGEST_TAG: manifest.digest_of(self.manifest.evidence),
        }


def make_evidence(
    title: str, model: Path, eval_data: EvalData, policy: TrustPolicy, folder: Path
) -> MadeEvidence:
    """Write the evidence of a model into an empty folder, if the model predicts the labels.

    Parameters
    ----------
    title
        The name of the model in messages.
    model
        The folder with its files.
    eval_data
        Labelled rows that it was not trained on.
    policy
        The types and formats that it may contain.
    folder
        Receives the evidence; complete only if this returns.

    Raises
    ------
    UnsupportedOperation
        If the model is a regressor, or predicts several classes a row.
    VerificationError
        If it does not load, or does not predict these labels significantly better than their
        commonest class.
    InputError
        If the rows are too few, or cannot be recorded.
    """
    rows = _model_rows(title, model, eval_data)
    predicted = _predict(title, model, rows, policy)
    quality = _check_labels(title, rows, predicted, eval_data.target)
    recorded = _write_evidence(folder, title, rows, eval_data.target, predicted)
    made = manifest.write_manifest(folder, manifest.manifest_of(model))
    return MadeEvidence(made, len(rows.labels), recorded, quality["accuracy"], quality["baseline_accuracy"])


def _model_rows(title: str, model: Path, eval_data: EvalData) -> Holdout:
    """Return the rows with the columns of the signature, or all columns if it has no column names."""
    rows = eval_data.rows_for([model])
    columns = [column.name for column in describe(model).signature or () if column.name in rows.rows]
    if columns:
        rows = replace(rows, rows=rows.rows[columns])
    distinct = int(np.sum(rows.distinct))
    if distinct < MINIMUM_ROWS:
        count = f"{distinct} rows" if distinct == len(rows.labels) else f"{distinct} distinct rows"
        raise InputError(
            f"{eval_data.path} has {count}, {MINIMUM_ROWS} are needed to adopt {title}: give "
            "more rows with --eval-data"
        )
    return rows


def _example(rows: Holdout) -> pd.DataFrame:
    """Return the rows to record predictions for, spread evenly over the holdout."""
    places = np.unique(np.linspace(0, len(rows.labels) - 1, _RECORDED_ROWS).astype(int))
    return rows.rows.iloc[places].reset_index(drop=True)


def _predict(title: str, model: Path, rows: Holdout, policy: TrustPolicy) -> IsolatedPredictions:
    (predicted,) = predict_in_clean_process(
        [PredictJob(model, {"holdout": rows.rows, "example": _example(rows)}, policy)]
    )
    if not isinstance(predicted, IsolatedPredictions):
        raise VerificationError(f"{title}: {predicted}")
    if predicted.regressor:
        raise UnsupportedOperation(
            f"{title} is a regressor: the gates compare classes and could not use its evidence; "
            "adopt classifiers only"
        )
    if predicted.class_fault is not None:
        raise UnsupportedOperation(f"{title} {predicted.class_fault}")
    return predicted


def _check_labels(
    title: str, rows: Holdout, predicted: IsolatedPredictions, target: str
) -> Mapping[str, float]:
    """Refuse labels that the version does not predict; return the metrics of `baseline` on all rows.

    Evidence is written once. If the labels came from the wrong column, all later checks would be wrong.
    """
    try:
        predictions = predictions_as_labels(rows.labels, predicted, "holdout")
    except VerificationError as error:
        raise VerificationError(
            f"{title} {error}: give --target the column with the labels that it predicts"
        ) from None
    gate = judge_distinct(lambda mask: baseline_gate(rows.labels[mask], predictions[mask]), rows.distinct)
    if not gate.passed:
        names = ("rows", "accuracy", "baseline_accuracy", "p_better")
        count, accuracy, baseline, p = (gate.metrics[name] for name in names)
        raise VerificationError(
            f"{title} predicts {target!r} with accuracy {accuracy:.4f} on {count:.0f} rows, not "
            f"significantly better than {baseline:.4f} for always predicting the commonest class "
            f"(p = {p:.3g}); check that --target {target} is the label that it was trained on, or give "
            "more rows"
        )
    return baseline_gate(rows.labels, predictions).metrics


def _write_evidence(
    folder: Path, title: str, rows: Holdout, target: str, predicted: IsolatedPredictions
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
        raise InputError(f"the rows for {title} cannot be recorded as JSON: {error}") from error
    return len(example)

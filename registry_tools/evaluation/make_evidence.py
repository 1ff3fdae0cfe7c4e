"""Make the evidence of a model from labelled rows: holdout, recorded predictions, manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.gates.baseline import baseline_gate
from registry_tools.evaluation.gates.comparison import MINIMUM_ROWS, judge_distinct
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.version_bundle import as_outcomes, labels_for, task_of
from registry_tools.mlflow_store.registry import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.models import evidence, manifest
from registry_tools.models.evidence import Evaluation, Holdout, RecordedPredictions
from registry_tools.models.formats import describe
from registry_tools.models.manifest import VersionManifest
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.metric import find_metric
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS, REGRESSION

_RECORDED_ROWS = 20


@dataclass(frozen=True)
class Quality:
    """The metric of a version on its new holdout, and that of the best constant predictions."""

    metric: str
    value: float
    baseline_value: float

    @property
    def metrics(self) -> dict[str, float]:
        """The values to log, by name."""
        return {self.metric: self.value, f"baseline_{self.metric}": self.baseline_value}


@dataclass(frozen=True)
class MadeEvidence:
    """Evidence in a folder, and the quality that it shows."""

    manifest: VersionManifest
    holdout_rows: int
    recorded_rows: int
    quality: Quality

    @property
    def digests(self) -> dict[str, str]:
        """The tags of a version with this evidence."""
        return {
            DIGEST_TAG: manifest.digest_of(self.manifest.model),
            EVIDENCE_DIGEST_TAG: manifest.digest_of(self.manifest.evidence),
        }

    def fields(self) -> dict[str, Any]:
        """Return the fields of `EvidencedVersion` that this evidence decides."""
        return {
            "digest": self.digests[DIGEST_TAG],
            "evidence_digest": self.digests[EVIDENCE_DIGEST_TAG],
            "holdout_rows": self.holdout_rows,
            "recorded_rows": self.recorded_rows,
            **vars(self.quality),
        }


@dataclass(frozen=True, kw_only=True)
class EvidencedVersion:
    """A version with new evidence, and its quality on the labelled rows that became its holdout."""

    name: str
    version: int
    digest: str
    evidence_digest: str
    holdout_rows: int
    recorded_rows: int
    metric: str  # accuracy, or rmse for a regressor
    value: float
    baseline_value: float  # of always predicting the commonest class, or the mean

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; nobody knows the training rows."""
        return asdict(self) | {"training_rows": None}


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
        If the model predicts several values a row.
    VerificationError
        If it does not load, or does not predict these labels significantly better than their
        commonest class or, for numbers, their mean.
    InputError
        If the rows are too few, or cannot be recorded.
    """
    rows = _model_rows(title, model, eval_data)
    predicted = _predict(title, model, rows, policy)
    task = task_of(predicted, None)
    rows = labels_for(task, rows, f"--target {eval_data.target} of {eval_data.path}")
    quality = _check_labels(title, rows, predicted, eval_data.target, task)
    recorded = _write_evidence(folder, title, rows, eval_data.target, predicted)
    if task == REGRESSION:  # the evidence of classifiers has no such file: an adoption can be repeated
        evidence.write_evaluation(folder, Evaluation(task, quality.metric))
    made = manifest.write_manifest(folder, manifest.manifest_of(model))
    return MadeEvidence(made, len(rows.labels), recorded, quality)


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
    if predicted.output_fault is not None:
        raise UnsupportedOperation(f"{title} {predicted.output_fault}")
    return predicted


def _check_labels(
    title: str, rows: Holdout, predicted: IsolatedPredictions, target: str, task: str
) -> Quality:
    """Refuse labels that the version does not predict; return its quality on all rows.

    Evidence is written once. If the labels came from the wrong column, all later checks would be wrong.
    """
    try:
        outcomes = as_outcomes(rows.labels, predicted, "holdout", task)
    except VerificationError as error:
        raise VerificationError(
            f"{title} {error}: give --target the column with the labels that it predicts"
        ) from None
    metric = find_metric(DEFAULT_METRICS[task], task)
    gate = judge_distinct(lambda mask: baseline_gate(metric, outcomes.take(mask)), rows.distinct)
    constant = "the commonest class" if task == CLASSIFICATION else "the mean"
    if not gate.passed:
        quality, digits = _quality(metric.name, gate.metrics), ".4f" if task == CLASSIFICATION else ".5g"
        raise VerificationError(
            f"{title} predicts {target!r} with {metric.name} {quality.value:{digits}} on "
            f"{gate.metrics['rows']:.0f} rows, not significantly better than "
            f"{quality.baseline_value:{digits}} for always predicting {constant} "
            f"(p = {gate.metrics['p_better']:.3g}); check that --target {target} is the label that it was "
            "trained on, or give more rows"
        )
    return _quality(metric.name, baseline_gate(metric, outcomes).metrics)


def _quality(metric: str, given: Mapping[str, float]) -> Quality:
    value, baseline = (
        ("accuracy", "baseline_accuracy") if "accuracy" in given else ("value", "baseline_value")
    )
    return Quality(metric, given[value], given[baseline])


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

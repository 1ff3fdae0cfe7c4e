"""Make the evidence of a model from labelled rows: holdout, recorded predictions, manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from registry_tools.errors import InputError, VerificationError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.gates.baseline import baseline_gate
from registry_tools.evaluation.gates.comparison import MINIMUM_ROWS, judge_distinct
from registry_tools.evaluation.isolated_predict import (
    PredictJob,
    checked_predictions,
    predict_in_clean_process,
)
from registry_tools.evaluation.version_bundle import as_outcomes, labels_for, task_of
from registry_tools.models import evidence, manifest
from registry_tools.models.evidence import Evaluation, Holdout, RecordedPredictions
from registry_tools.models.formats import describe
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.task import CLASSIFICATION, DEFAULT_METRICS, REGRESSION

_RECORDED_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class MadeEvidence:
    """New evidence of a version, and its quality on the labelled rows that became its holdout."""

    digest: str
    evidence_digest: str
    holdout_rows: int
    recorded_rows: int
    metric: str  # accuracy, or rmse for a regressor
    value: float
    baseline_value: float  # of always predicting the commonest class, or the mean

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a version with this evidence."""
        return {DIGEST_TAG: self.digest, EVIDENCE_DIGEST_TAG: self.evidence_digest}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; nobody knows the training rows."""
        return asdict(self) | {"training_rows": None}


def make_evidence(
    title: str, model: Path, eval_data: EvalData, trust_policy: TrustPolicy, folder: Path
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
    trust_policy
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
    # The rows to record predictions for are spread evenly over the holdout.
    places = np.unique(np.linspace(0, len(rows.labels) - 1, _RECORDED_ROWS).astype(int))
    tables = {"holdout": rows.rows, "example": rows.rows.iloc[places].reset_index(drop=True)}
    (result,) = predict_in_clean_process([PredictJob(model, tables, trust_policy)])
    predicted = checked_predictions(title, result)
    task, target = task_of(predicted, None), eval_data.target
    rows = labels_for(task, rows, f"--target {target} of {eval_data.path}")
    fix = ": give --target the column with the labels that it predicts"
    outcomes = as_outcomes(rows.labels, predicted, "holdout", task, title, fix)
    value, baseline_value = _check_labels(title, rows, outcomes, target, task)
    evidence.write_holdout(folder, rows.rows, pd.Series(rows.labels, name=target))
    predictions, probabilities = predicted.predictions["example"], predicted.probabilities["example"]
    recorded = RecordedPredictions(
        tables["example"],
        np.asarray(predictions),
        None if probabilities is None else np.asarray(probabilities),
    )
    try:
        evidence.write_recorded_predictions(folder, recorded)
    except TypeError as error:  # such as times, which JSON cannot represent
        raise InputError(f"the rows for {title} cannot be recorded as JSON: {error}") from error
    metric = DEFAULT_METRICS[task]
    if task == REGRESSION:  # the evidence of classifiers has no such file: an adoption can be repeated
        evidence.write_evaluation(folder, Evaluation(task, metric))
    made = manifest.write_manifest(folder, manifest.manifest_of(model))
    return MadeEvidence(
        digest=manifest.digest_of(made.model),
        evidence_digest=manifest.digest_of(made.evidence),
        holdout_rows=len(rows.labels),
        recorded_rows=len(places),
        metric=metric,
        value=value,
        baseline_value=baseline_value,
    )


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


def _check_labels(
    title: str, rows: Holdout, outcomes: Outcomes, target: str, task: str
) -> tuple[float, float]:
    """Refuse labels that the version does not predict.

    Evidence is written once. If the labels came from the wrong column, all later checks would be wrong.

    Returns
    -------
    tuple
        The metric of the version on all rows, and that of the best constant predictions.
    """
    metric = find_metric(DEFAULT_METRICS[task], task)
    key, digits, constant = "value", ".5g", "the mean"
    if task == CLASSIFICATION:
        key, digits, constant = "accuracy", ".4f", "the commonest class"
    gate = judge_distinct(lambda mask: baseline_gate(metric, outcomes.take(mask)), rows.distinct)
    if not gate.passed:
        found = gate.metrics
        raise VerificationError(
            f"{title} predicts {target!r} with {metric.name} {found[key]:{digits}} on {found['rows']:.0f} "
            f"rows, not significantly better than {found[f'baseline_{key}']:{digits}} for always predicting "
            f"{constant} (p = {found['p_better']:.3g}); check that --target {target} is the label that it "
            "was trained on, or give more rows"
        )
    on_all = baseline_gate(metric, outcomes).metrics
    return on_all[key], on_all[f"baseline_{key}"]

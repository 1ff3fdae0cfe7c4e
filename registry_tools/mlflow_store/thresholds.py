"""Check metrics against thresholds with MLflow's model validation."""

from __future__ import annotations

from collections.abc import Mapping

import mlflow
from mlflow.models import EvaluationResult, MetricThreshold
from mlflow.models.evaluation.validation import ModelValidationFailedException


def failed_thresholds(
    metrics: Mapping[str, float], minimum: Mapping[str, float], maximum: Mapping[str, float]
) -> list[str]:
    """Return the names of the metrics that miss their minimum or maximum."""
    result = EvaluationResult(metrics=dict(metrics), artifacts={})  # type: ignore[no-untyped-call]
    failed = []
    for bounds, greater in ((minimum, True), (maximum, False)):
        for name, wanted in bounds.items():
            threshold = MetricThreshold(  # type: ignore[no-untyped-call]
                threshold=float(wanted), greater_is_better=greater
            )
            try:
                mlflow.validate_evaluation_results({name: threshold}, result)
            except ModelValidationFailedException:
                failed.append(name)
    return failed

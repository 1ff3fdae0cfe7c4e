"""Compare two versions on the same rows: their predictions row by row, and the paired test."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from registry_tools.errors import InputError, RegistryToolsError, VerificationError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.isolated_predict import (
    PredictJob,
    checked_predictions,
    predict_in_clean_process,
)
from registry_tools.evaluation.version_bundle import (
    VersionBundle,
    as_outcomes,
    check_training_rows,
    fetch_bundle,
    labels_for,
    new_rows,
    task_of,
)
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.evidence import Holdout
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef
from registry_tools.stats.metric import METRICS, Outcomes, find_metric
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import DEFAULT_METRICS, REGRESSION

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TABLE = "compared"


@dataclass(frozen=True)
class PairedPredictions:
    """Two versions on rows that neither was trained on, as far as their training rows are recorded."""

    rows: pd.DataFrame
    first: Outcomes
    second: Outcomes
    paired: MetricDifference  # by the default metric of the task, with the first version as the candidate
    unrecorded: tuple[str, ...] = ()  # the versions without recorded training rows
    repeated: int = 0  # the number of rows left out because they repeat another row
    asked: MetricDifference | None = None  # by the metric that the user names

    @functools.cached_property
    def differences(self) -> tuple[MetricDifference, ...]:
        """The accuracy, or the metrics of a regression, with the first version as the candidate.

        A metric that is undefined on the rows is left out.
        """
        if self.paired.is_accuracy:
            return (self.paired,)
        metrics = [metric for metric in METRICS if metric.task == REGRESSION]
        found = (compare_by(metric, self.first, self.second) for metric in metrics)
        return tuple(each for each in found if each is not None)

    @property
    def rows_phrase(self) -> str:
        """The number of rows and their description, for messages."""
        left_out = f", without {self.repeated} repeated ones" if self.repeated else ""
        if not self.unrecorded:
            return f"{self.paired.rows} rows that neither was trained on{left_out}"
        unknown = f"(the training rows of {' and '.join(self.unrecorded)} are not recorded)"
        return f"{self.paired.rows} rows {unknown}{left_out}"


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side, and their predictions for the same rows."""

    first: VersionInfo
    second: VersionInfo
    predictions: PairedPredictions | None  # None if they cannot predict the same rows
    not_paired_because: str | None = None
    eval_data: str | None = None  # the file that was compared on; None for held-out rows

    @property
    def paired(self) -> MetricDifference | None:
        """The paired test of their accuracy, of the rmse of numbers, or by the metric that the user names."""
        return (self.predictions.asked or self.predictions.paired) if self.predictions is not None else None

    def values(self) -> list[tuple[str, str, Any, Any]]:
        """Return kind, name, and the value of each version: the data, parameters and metrics."""
        one, two = self.first, self.second
        params, metrics = sorted({*one.params, *two.params}), sorted({*one.metrics, *two.metrics})
        return [
            ("data", "", one.tags.get("data_digest"), two.tags.get("data_digest")),
            *(("param", key, parameter(one, key), parameter(two, key)) for key in params),
            *(("metric", key, one.metrics.get(key), two.metrics.get(key)) for key in metrics),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "versions": [self.first.as_dict(), self.second.as_dict()],
            "paired": self.paired.metrics() if self.paired is not None else None,
            "metric": self.paired.metric if self.paired is not None else None,
            "not_paired_because": self.not_paired_because,
            "eval_data": self.eval_data,
            "unrecorded_training_rows": list(self.predictions.unrecorded) if self.predictions else [],
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame of data, parameters and metrics, with a column for each version."""
        titles = [f"{version.name}/{version.version}" for version in (self.first, self.second)]
        return pd.DataFrame(self.values(), columns=["kind", "name", *titles]).set_index(["kind", "name"])


def parameter(version: VersionInfo, name: str) -> str | None:
    """Return a parameter in the one form that equal values have; None if it was not logged, or is none.

    `mlflow run` logs the value `{}` as `'{}'`.
    """
    value = version.params.get(name)
    if value is not None and len(value) > 1 and value[0] == value[-1] == "'":
        value = value[1:-1]
    return None if value in {None, "none", "None"} else value


def compare(
    client: MlflowClient,
    first: ModelRef,
    second: ModelRef,
    trust_policy: TrustPolicy,
    eval_data: EvalData | None = None,
    metric: str | None = None,
) -> Comparison:
    """Compare two versions; without `eval_data` also if they cannot predict the same rows.

    Raises
    ------
    InputError
        If both references mean one version, or they cannot be compared by `metric`.
    VerificationError
        If they cannot be compared on `eval_data`.
    """
    one, two = registry.get_version(client, first), registry.get_version(client, second)
    if (one.name, one.version) == (two.name, two.version):
        raise InputError(
            f"{first} and {second} are both {one.name} version {one.version}: `registry-tools "
            f"history {one.name}` shows the earlier versions"
        )
    where = str(eval_data.path) if eval_data is not None else None
    try:
        return Comparison(
            one, two, predict_pair(client, one, two, trust_policy, eval_data, metric), None, where
        )
    except InputError:
        raise
    except RegistryToolsError as error:  # such as missing files: the rest can still be shown
        if where is not None:
            raise VerificationError(f"not compared on {where}: {error}") from error
        return Comparison(one, two, None, str(error))


def predict_pair(
    client: MlflowClient,
    first: VersionInfo,
    second: VersionInfo,
    trust_policy: TrustPolicy,
    eval_data: EvalData | None = None,
    metric: str | None = None,
) -> PairedPredictions:
    """Predict with two versions on rows that neither was trained on.

    Parameters
    ----------
    client, first, second
        The registry and the two versions.
    trust_policy
        The types and formats to trust in both versions.
    eval_data
        Labelled rows; None takes the holdout of the first version.
    metric
        The metric to compare by too, as for `find_metric`.

    Returns
    -------
    PairedPredictions
        The compared rows, the predictions of both versions, and the paired test.

    Raises
    ------
    InputError
        If the versions cannot be compared by the metric.
    VerificationError
        If a version cannot be verified or fails to predict, or no row is left to compare.
    """
    with ExitStack() as files:
        bundles = [fetch_bundle(client, version, trust_policy, files) for version in (first, second)]
        folders = [_verified_folder(bundle) for bundle in bundles]
        found = _rows_to_compare(bundles, eval_data)
        rows = found.take(found.distinct)
        titles = [bundle.title for bundle in bundles]
        results = predict_in_clean_process(
            [PredictJob(each, {_TABLE: rows.rows}, trust_policy) for each in folders]
        )
        predicted = [checked_predictions(*each) for each in zip(titles, results, strict=True)]
    task = task_of(predicted[0], bundles[0].evaluation)
    where = f"--target {eval_data.target}" if eval_data is not None else "the held-out rows"
    labels = labels_for(task, rows, where).labels
    one, two = (
        as_outcomes(labels, given, _TABLE, task, title)
        for title, given in zip(titles, predicted, strict=True)
    )
    paired = compare_by(find_metric(DEFAULT_METRICS[task], task), one, two)
    if paired is None:
        raise VerificationError("one row is left to compare: give more with --eval-data FILE --target COLUMN")
    asked = compare_by(find_metric(metric, task), one, two) if metric is not None else None
    if metric is not None and asked is None:
        raise InputError(
            f"metric={metric}: the rows lack what it needs, such as a class: give --eval-data FILE"
        )
    unrecorded = tuple(bundle.title for bundle in bundles if bundle.training_rows is None)
    repeated = int(np.sum(~found.distinct))
    return PairedPredictions(rows.rows, one, two, paired, unrecorded, repeated, asked)


def _verified_folder(bundle: VersionBundle) -> Path:
    if bundle.faults or bundle.folder is None:
        raise VerificationError(f"{bundle.title}: {bundle.faults[0]}")
    return bundle.folder


def _rows_to_compare(bundles: Sequence[VersionBundle], eval_data: EvalData | None) -> Holdout:
    """Return the rows that neither version was trained on, as far as that is recorded."""
    rows = bundles[0].holdout
    if eval_data is not None:
        rows = eval_data.rows_for(bundle.folder for bundle in bundles)
    if rows is None:
        raise VerificationError(
            f"{bundles[0].title} was logged without held-out rows: give --eval-data FILE --target COLUMN"
        )
    for bundle in bundles:
        check_training_rows(rows, bundle)
    left = rows.take(np.logical_and.reduce([new_rows(rows, bundle) for bundle in bundles]))
    if not len(left.labels):
        raise VerificationError(
            f"all {len(rows.labels)} rows are training rows of one of the versions: give other rows with "
            "--eval-data FILE --target COLUMN"
        )
    return left

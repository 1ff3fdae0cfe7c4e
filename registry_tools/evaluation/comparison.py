"""Two versions on the same rows: their predictions, row by row, and the paired comparison."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.errors import VerificationError
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.version_bundle import (
    exclude_training_rows,
    fetch_bundle,
    predictions_as_labels,
    unknown_training_rows,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.stats.paired_test import PairedComparison, compare_predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TABLE = "compared"


@dataclass(frozen=True)
class VersionPredictions:
    """The predictions of one version for the rows."""

    names: npt.NDArray[Any]  # as the labels are written, shape (rows,)
    probabilities: npt.NDArray[np.float64] | None  # shape (rows, classes)
    classes: tuple[str, ...]  # in the order of the probabilities


@dataclass(frozen=True)
class PairedPredictions:
    """Two versions on held-out rows of the first that neither was trained on."""

    rows: pd.DataFrame
    labels: npt.NDArray[Any]  # class names, shape (rows,)
    first: VersionPredictions
    second: VersionPredictions
    paired: PairedComparison  # the first as the candidate


def compare(
    client: MlflowClient, first: VersionInfo, second: VersionInfo, policy: TrustPolicy
) -> PairedPredictions:
    """Predict with two versions on held-out rows of the first that neither was trained on.

    Raises
    ------
    VerificationError
        If one does not verify or predict, or there are no such rows; the message says why.
    """
    with ExitStack() as files:
        bundles = [fetch_bundle(client, version, policy, files) for version in (first, second)]
        rows = bundles[0].holdout
        held_out = rows
        for bundle in bundles:
            rows = exclude_training_rows(rows, bundle)
        jobs = []
        for bundle in bundles:
            if bundle.faults or bundle.folder is None:
                raise VerificationError(f"{_title(bundle.version)}: {bundle.faults[0]}")
            if rows is None or held_out is None:
                raise VerificationError(f"{_title(first)} was logged without held-out rows")
            unknown = unknown_training_rows(held_out, bundle)
            if unknown is not None:
                raise VerificationError(unknown)
            if not len(rows.labels):
                raise VerificationError(
                    f"{_title(first)} has no held-out rows that {_title(second)} was not trained on"
                )
            jobs.append(PredictJob(bundle.folder, {_TABLE: rows.rows}, policy))
        assert rows is not None
        one, two = (
            _as_version_predictions(rows.labels, bundle.version, predictions)
            for bundle, predictions in zip(bundles, predict_in_clean_process(jobs), strict=True)
        )
        paired = compare_predictions(rows.labels, one.names, two.names)
        return PairedPredictions(rows.rows, rows.labels, one, two, paired)


def _as_version_predictions(
    labels: npt.NDArray[Any], version: VersionInfo, predictions: IsolatedPredictions | VerificationError
) -> VersionPredictions:
    if isinstance(predictions, VerificationError):
        raise VerificationError(f"{_title(version)}: {predictions}")
    probabilities = predictions.probabilities[_TABLE]
    try:
        names = predictions_as_labels(labels, predictions, _TABLE)
    except VerificationError as error:
        raise VerificationError(f"{_title(version)} {error}") from None
    return VersionPredictions(
        names,
        None if probabilities is None else np.asarray(probabilities, dtype=float),
        tuple(predictions.classes),
    )


def _title(version: VersionInfo) -> str:
    return f"{version.name} version {version.version}"

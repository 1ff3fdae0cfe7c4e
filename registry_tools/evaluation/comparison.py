"""Two versions on the same rows: their answers, row by row, and what they come to."""

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
    fetch,
    predictions_as_labels,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models.formats import TrustPolicy
from registry_tools.stats.paired_test import PairedComparison, compare_predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TABLE = "compared"


@dataclass(frozen=True)
class VersionPredictions:
    """What one version answered to the rows."""

    names: npt.NDArray[Any]  # in the words of the labels, shape (rows,)
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
    """Have two versions answer held-out rows of the first that neither was trained on.

    Raises
    ------
    VerificationError
        If one does not verify or answer, or there are no such rows; says why in one line.
    """
    with ExitStack() as files:
        one, two = (fetch(client, version, policy, files) for version in (first, second))
        jobs = []
        rows = exclude_training_rows(exclude_training_rows(one.holdout, two), one)
        for bundle in (one, two):
            fault = bundle.fault or bundle.evidence_fault
            if fault is not None or bundle.folder is None:
                raise VerificationError(f"{_title(bundle.version)}: {fault}")
            if rows is None:
                raise VerificationError(f"{_title(first)} was logged without held-out rows")
            if not len(rows.labels):
                raise VerificationError(
                    f"{_title(first)} has no held-out rows that {_title(second)} was not trained on"
                )
            table = {_TABLE: rows.rows}
            jobs.append(PredictJob(bundle.folder, table, None, policy.types, policy.allow_code))
        assert rows is not None
        one_answered, two_answered = (
            _answers_of(rows.labels, version, answers)
            for version, answers in zip(
                (first, second), predict_in_clean_process(jobs), strict=True
            )
        )
        paired = compare_predictions(rows.labels, one_answered.names, two_answered.names)
        return PairedPredictions(rows.rows, rows.labels, one_answered, two_answered, paired)


def _answers_of(
    labels: npt.NDArray[Any], version: VersionInfo, answers: IsolatedPredictions | VerificationError
) -> VersionPredictions:
    if isinstance(answers, VerificationError):
        raise VerificationError(f"{_title(version)}: {answers}")
    probabilities = answers.probabilities[_TABLE]
    try:
        names = predictions_as_labels(labels, answers, _TABLE)
    except VerificationError as error:
        raise VerificationError(f"{_title(version)} {error}") from None
    return VersionPredictions(
        names,
        None if probabilities is None else np.asarray(probabilities, dtype=float),
        tuple(answers.classes),
    )


def _title(version: VersionInfo) -> str:
    return f"{version.name} version {version.version}"

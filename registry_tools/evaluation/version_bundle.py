"""Fetch a version to evaluate or compare, with its verified files and its evidence."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.data.schema import quoted_names
from registry_tools.errors import VerificationError
from registry_tools.evaluation.isolated_predict import IsolatedPredictions
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import evidence, manifest
from registry_tools.models.evidence import Evaluation, Holdout, RecordedPredictions, TrainingRows
from registry_tools.models.loader import verified_evidence, verified_files
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import ONNX_DIGEST_TAG
from registry_tools.stats.metric import Outcomes
from registry_tools.task import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class VersionBundle:
    """A version with its files and its evidence.

    `folder` is None if the files differ from the registered ones. `faults` describes differing files
    and unreadable evidence.
    """

    version: VersionInfo
    folder: Path | None
    faults: tuple[str, ...]
    recorded: RecordedPredictions | None = None
    training_rows: TrainingRows | None = None
    holdout: Holdout | None = None
    evaluation: Evaluation | None = None  # None if it was not recorded
    evidence_files: int = 0  # the number of evidence files that were compared with the manifest
    onnx: Path | None = None  # the stored ONNX file
    signed: bool = False

    @property
    def title(self) -> str:
        """The name of the model and the number of the version."""
        return f"{self.version.name} version {self.version.version}"


def fetch_bundle(
    client: MlflowClient, version: VersionInfo, trust_policy: TrustPolicy, files: ExitStack
) -> VersionBundle:
    """Fetch the files and the evidence of a version; the folders last until `files` is closed."""
    folder, faults = None, []
    try:
        folder = files.enter_context(verified_files(client, version, trust_policy))
    except VerificationError as error:
        faults.append(str(error))
    try:
        stored = files.enter_context(verified_evidence(client, version, trust_policy))
        if stored is not None:
            listed = manifest.read_manifest(stored)
            has_onnx = ONNX_DIGEST_TAG in version.tags and listed is not None and listed.onnx
            return VersionBundle(
                version,
                folder,
                tuple(faults),
                evidence.read_recorded_predictions(stored),
                evidence.read_training_rows(stored),
                evidence.read_holdout(stored),
                evidence.read_evaluation(stored),
                len(listed.evidence) if listed is not None else 0,
                stored / manifest.ONNX_FILE if has_onnx else None,
                (stored / manifest.SIGNATURE_FILE).is_file(),
            )
    except VerificationError as error:
        if str(error) not in faults:  # a missing signature is reported twice
            faults.append(str(error))
    return VersionBundle(version, folder, tuple(faults))


def new_rows(rows: Holdout, bundle: VersionBundle) -> npt.NDArray[np.bool_]:
    """Return the mask of rows that a version was not trained on; all rows if that is unknown."""
    training = bundle.training_rows
    if training is None or training.missing_columns(rows.rows):
        return np.ones(len(rows.labels), dtype=bool)
    return ~np.isin(training.hash(rows.rows), training.hashes)


def check_training_rows(rows: Holdout, bundle: VersionBundle) -> None:
    """Refuse rows among which the recorded training rows of a version cannot be found.

    Raises
    ------
    VerificationError
        If the rows lack a column of the training rows, or their values are rounded. The message states
        the fix.
    """
    if bundle.training_rows is None:
        return
    unknown = f"it is unknown which of the rows {bundle.title} was trained on"
    if missing := bundle.training_rows.missing_columns(rows.rows):
        names = quoted_names(missing)
        raise VerificationError(
            f"{unknown}: it was trained with {names}, which the rows lack; give --eval-data FILE --target "
            f"COLUMN, with {names} in the file"
        )
    if narrow := bundle.training_rows.rounded_columns(rows.rows):
        types = ", ".join(sorted({str(rows.rows[name].dtype) for name in narrow}))
        raise VerificationError(
            f"{unknown}: {quoted_names(narrow)} has {types} values, which are rounded, and the version was "
            "trained on wider numbers; give the unrounded rows, as float64 or CSV, with --eval-data FILE "
            "--target COLUMN"
        )


def task_of(predictions: IsolatedPredictions, evaluation: Evaluation | None) -> str:
    """Return the task of a version; its training may know that whole numbers are not classes."""
    if predictions.regressor or (evaluation is not None and evaluation.task == REGRESSION):
        return REGRESSION
    return CLASSIFICATION


def labels_for(task: str, rows: Holdout, title: str) -> Holdout:
    """Return rows with labels for the task: numbers for a regression, shape (rows,).

    Raises
    ------
    VerificationError
        If a label is not a finite number. The message names its row in the rows of `title`, from 0.
    """
    if task == CLASSIFICATION:
        return rows
    numbers = pd.to_numeric(pd.Series(rows.labels, dtype=object), errors="coerce").to_numpy("float64")
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise VerificationError(
            f"{title}: row {wrong[0]} has the label {rows.labels[wrong[0]]!r}, and the model predicts "
            "numbers: give --target the column with the numbers"
        )
    return replace(rows, labels=numbers)


def as_outcomes(
    labels: npt.NDArray[Any],
    predictions: IsolatedPredictions,
    table: str,
    task: str,
    title: str,
    fix: str = "",
) -> Outcomes:
    """Return labelled rows with predictions written as the labels are: numbers, class names or codes.

    Parameters
    ----------
    labels, predictions, table
        The labels of the rows of a table, and the predictions for the table.
    task
        The task of the version that decides how labels are read.
    title, fix
        The beginning of the message of an error, which names the version, and its end.

    Raises
    ------
    VerificationError
        If the model has another task, or labels and predictions do not share their classes.
    """
    try:
        if task == REGRESSION:
            return Outcomes(labels, _as_numbers(predictions, table))
        if predictions.regressor:
            raise VerificationError("predicts numbers; the labels are classes")
        written, classes = _written_as(labels, predictions, table)
    except VerificationError as error:
        raise VerificationError(f"{title} {error}{fix}") from None
    given = predictions.probabilities[table]
    probabilities = None if given is None else np.asarray(given, dtype=float)
    return Outcomes(labels, written, probabilities, tuple(classes))


def _as_numbers(predictions: IsolatedPredictions, table: str) -> npt.NDArray[np.float64]:
    with contextlib.suppress(TypeError, ValueError):
        if predictions.regressor or not predictions.classes:
            return np.asarray(predictions.predictions[table], dtype=float)
    raise VerificationError("predicts classes; the labels are numbers")


def _written_as(
    labels: npt.NDArray[Any], predictions: IsolatedPredictions, table: str
) -> tuple[npt.NDArray[Any], list[str]]:
    """Return predictions and classes written as the labels are, by class name or by code.

    Labels and predictions must share their classes, and each prediction must be one of the classes.
    Otherwise right predictions would count as wrong.
    """
    known = set(labels.tolist())
    names = predictions.names[table]
    spellings = [(names, predictions.classes)]
    if predictions.codes:  # only target names assign codes to classes
        codes = [str(value) for value in predictions.predictions[table]]
        spellings.append((codes, predictions.codes))
    for written, classes in spellings:
        own = set(classes) or set(names)
        # Either side may have classes that the other lacks, but not both sides.
        if set(written) <= own and (own <= known or known <= own):
            return np.asarray(written, dtype=object), classes
    own = set(predictions.classes) or set(names)
    shown, wanted = (", ".join(sorted(names)[:3]) for names in (own, known))
    raise VerificationError(f"predicts {shown}; the labels are {wanted}")

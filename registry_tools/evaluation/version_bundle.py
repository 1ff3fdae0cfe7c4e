"""The versions that are judged or compared: what there is of each, and what its answers mean."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import VerificationError
from registry_tools.evaluation.isolated_predict import IsolatedPredictions
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, evidence
from registry_tools.models.evidence import Holdout, RecordedPredictions
from registry_tools.models.formats import TrustPolicy
from registry_tools.models.loader import verified_files

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class VersionBundle:
    """A version with what there is of it to judge; `folder` is None if its files differ."""

    version: VersionInfo
    folder: Path | None
    fault: str | None
    evidence_fault: str | None
    answer: RecordedPredictions | None
    holdout: Holdout | None
    training_rows: npt.NDArray[np.uint64] | None


def fetch(
    client: MlflowClient, version: VersionInfo, policy: TrustPolicy, files: ExitStack
) -> VersionBundle:
    """Fetch what there is of a version; the folders last until `files` is closed."""
    folder, fault = None, None
    try:
        folder = files.enter_context(verified_files(client, version, policy))
    except VerificationError as error:
        fault = str(error)
    kept = files.enter_context(artifacts.evidence_files(client, version))
    if kept is None:
        return VersionBundle(version, folder, fault, None, None, None, None)
    try:
        return VersionBundle(
            version,
            folder,
            fault,
            None,
            evidence.read_recorded_predictions(kept),
            evidence.read_holdout(kept),
            evidence.read_training_rows(kept),
        )
    except VerificationError as error:
        return VersionBundle(version, folder, fault, str(error), None, None, None)


def exclude_training_rows(holdout: Holdout | None, before: VersionBundle | None) -> Holdout | None:
    """Return the rows that a version was not trained on."""
    if holdout is None or before is None or before.training_rows is None:
        return holdout
    return holdout.take(~np.isin(holdout.hashes, before.training_rows))


def predictions_as_labels(
    labels: npt.NDArray[Any], answers: IsolatedPredictions, table: str
) -> npt.NDArray[Any]:
    """Return answers as the labels have them: by class name, or by code.

    Raises
    ------
    VerificationError
        If each has a word that the other has not. Answers would count as wrong that nobody
        understood, and a candidate be found better for it. Says what comes after the version.
    """
    known = set(labels.tolist())
    codes = [str(value) for value in answers.predictions[table]]
    classes = set(answers.classes) or set(answers.names[table])
    numbers = {str(code) for code in range(len(classes))} if answers.classes else set(codes)
    for words, spoken in ((answers.names[table], classes), (codes, numbers)):
        # One may know a class that the other does not, but not both.
        if spoken <= known or known <= spoken:
            return np.asarray(words, dtype=object)
    given, wanted = (", ".join(sorted(words)[:3]) for words in (classes, known))
    raise VerificationError(f"answers with {given}, the labels are {wanted}")

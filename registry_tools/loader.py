"""From a model reference to a model that answers: resolved, fetched, verified, loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow import MlflowClient
from mlflow.models import Model

from registry_tools import integrity, registry
from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from registry_tools.refs import ModelRef, parse_ref
from registry_tools.signature import Column, columns_of, frame_of

_TARGET_NAMES = "target_names"


@dataclass(frozen=True)
class ModelInfo:
    """Which version was loaded, and what it takes and gives."""

    name: str
    version: int
    stage: str | None  # the stage it was asked for by; None if by number
    run_id: str | None
    digest: str | None
    target_names: tuple[str, ...] | None
    signature: tuple[Column, ...] | None  # None if it does not name and type its columns


@dataclass(frozen=True)
class LoadedModel:
    """A version that answers.

    Rows are a DataFrame or a sequence of mappings, matched by column name, or an array or a
    sequence of sequences of shape (rows, columns), matched by position.
    """

    info: ModelInfo
    estimator: Any  # a scikit-learn estimator, or MLflow's PyFuncModel for any other flavor

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return what the estimator returns for the rows, shape (rows,).

        Raises
        ------
        InputError
            If the rows do not fit the signature; names the row, the column and the value.

        """
        frame = frame_of(rows, self.info.signature)
        try:
            return np.asarray(self.estimator.predict(frame))
        except ValueError as error:
            raise InputError(f"the model cannot take these rows: {_one_line(error)}") from error

    def predict_names(self, rows: Any) -> npt.NDArray[Any]:
        """Return the names of the predicted classes, shape (rows,).

        Raises
        ------
        UnsupportedOperation
            If the version carries no target names and predicts none itself.
        InputError
            As `predict`.

        """
        return self.names_of(self.predict(rows))

    def names_of(self, predicted: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the class names that belong to predictions, shape (rows,)."""
        if self.info.target_names is None:
            if predicted.dtype.kind in "OU":
                return predicted
            raise UnsupportedOperation(
                f"{self.info.name} version {self.info.version} carries no target names: "
                "use predict, or register it with metadata={'target_names': [...]}"
            )
        return np.asarray(self.info.target_names)[predicted.astype(int)]

    def predict_proba(self, rows: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class, shape (rows, classes).

        Raises
        ------
        UnsupportedOperation
            If the model gives no probabilities.
        InputError
            As `predict`.

        """
        predict_proba = getattr(self.estimator, "predict_proba", None)
        if predict_proba is None:
            raise UnsupportedOperation(
                f"{self.info.name} version {self.info.version} "
                f"({type(self.estimator).__name__}) gives no probabilities: use predict"
            )
        frame = frame_of(rows, self.info.signature)
        try:
            return np.asarray(predict_proba(frame))
        except ValueError as error:
            raise InputError(f"the model cannot take these rows: {_one_line(error)}") from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `predict_proba`."""
        if self.info.target_names is not None:
            return self.info.target_names
        return tuple(str(name) for name in getattr(self.estimator, "classes_", ()))


def load_model(
    ref: str, stage: str | None = None, *, tracking_uri: str | None = None
) -> LoadedModel:
    """Load a version of a registered model.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3`, `iris/Production`, or the name alone with `stage`.
    stage
        The stage, when `ref` is a name.
    tracking_uri
        The registry; None takes what MLflow itself takes.

    Raises
    ------
    InvalidReference, NotFound, RegistryUnavailable, AccessDenied
        If the reference means nothing, or the registry cannot say what it means.
    VerificationError
        If the files are not those that were registered, or contain types that are not trusted.

    """
    return load(registry.connect(tracking_uri), parse_ref(ref, stage=stage))


def load(client: MlflowClient, ref: ModelRef) -> LoadedModel:
    """Load what a reference means now, as `load_model`, from a client's registry."""
    version = registry.get_version(client, ref)
    folder = registry.download_model(client, version.name, version.version)
    if version.digest is not None:
        integrity.check_files(folder, version.digest)
    described = Model.load(str(folder))
    names = (described.metadata or {}).get(_TARGET_NAMES)
    inputs = described.signature.inputs if described.signature else None
    info = ModelInfo(
        name=version.name,
        version=version.version,
        stage=ref.stage,
        run_id=version.run_id,
        digest=version.digest,
        target_names=tuple(names) if names else None,
        signature=columns_of(inputs.to_dict() if inputs else None),
    )
    return LoadedModel(info, _estimator(folder, described))


def _estimator(folder: Path, described: Model) -> Any:
    flavor = described.flavors.get("sklearn", {})
    if flavor.get("serialization_format") != "skops":
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(folder))
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    # Not mlflow.sklearn.load_model: it trusts whatever types the model's own MLmodel lists.
    try:
        return skops.io.load(
            folder / flavor["pickled_model"], trusted=list(integrity.TRUSTED_TYPES)
        )
    except UntrustedTypesFoundException as error:
        raise VerificationError(f"the model holds types that are not trusted: {error}") from error


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

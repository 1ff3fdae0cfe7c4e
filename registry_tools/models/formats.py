"""From a folder of verified files to a model that answers.

MLflow is imported only for the formats that it reads itself, and pandas only for rows in a frame: a
process that answers with skops models starts in half the time, and in half the memory, without.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import yaml

from registry_tools.data.schema import Column, columns_of
from registry_tools.errors import InputError, UnsupportedOperation, VerificationError, first_line
from registry_tools.models import manifest

if TYPE_CHECKING:
    import pandas as pd

    from registry_tools.mlflow_store.registry import VersionInfo

_TARGET_NAMES = "target_names"
_UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(yaml.YAMLError, RecursionError),
)
# What skops raises on a broken file is not documented: a zip, JSON, array or type may fail.
_BROKEN_SKOPS = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(RuntimeError, ImportError, BadZipFile, zlib.error),
)


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
    refusals: tuple[type[Exception], ...] = (ValueError, TypeError)  # how it refuses its input

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return what the estimator returns for the rows, shape (rows,).

        Raises
        ------
        InputError
            If the rows do not fit the signature; names the row, the column and the value.
        """
        return self._answered(self.estimator.predict, rows)

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
        return self._answered(predict_proba, rows)

    def _answered(self, answer: Callable[[pd.DataFrame], Any], rows: Any) -> npt.NDArray[Any]:
        from registry_tools.data.coercion import coerce

        frame = coerce(rows, self.info.signature)
        try:
            return np.asarray(answer(frame))
        except self.refusals as error:
            holes = np.argwhere(frame.isna().to_numpy())
            if len(holes):
                row, column = holes[0]
                raise InputError(
                    f"column {str(frame.columns[column])!r}, row {row}: missing value, and this "
                    "model was trained without any"
                ) from error
            raise InputError(f"the model cannot take these rows: {first_line(error)}") from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `predict_proba`.

        A model that was trained without a row of some class has no column for it.
        """
        names = self.info.target_names
        classes = getattr(self.estimator, "classes_", None)
        if classes is None:
            return names or ()
        by_code: dict[Any, str] = dict(enumerate(names or ()))
        return tuple(
            by_code.get(code, str(code)) if np.isscalar(code) else str(code) for code in classes
        )


@dataclass(frozen=True)
class TrustPolicy:
    """What the operator allows a model to contain."""

    types: tuple[str, ...] = ()  # beyond `integrity.TRUSTED_TYPES`
    allow_code: bool = False  # load what runs code of its own: pickle, Python models, code paths
    public_key: Path | None = None  # load only what carries a signature of this key

    @classmethod
    def from_environment(
        cls, trust: Sequence[str] = (), allow_code: bool = False, public_key: str | None = None
    ) -> TrustPolicy:
        """Return what the caller and the environment allow together.

        REGISTRY_TOOLS_TRUST names types between commas, REGISTRY_TOOLS_PUBLIC_KEY a key file.
        """
        names = os.environ.get("REGISTRY_TOOLS_TRUST", "").split(",")
        key = public_key or os.environ.get("REGISTRY_TOOLS_PUBLIC_KEY")
        return cls(
            types=(*(name.strip() for name in names if name.strip()), *trust),
            allow_code=allow_code,
            public_key=Path(key) if key else None,
        )

    @property
    def trusted(self) -> tuple[str, ...]:
        """All types that a model may contain, beside those that skops trusts itself."""
        return (*manifest.TRUSTED_TYPES, *self.types)


def load_folder(
    folder: Path,
    policy: TrustPolicy,
    version: VersionInfo | None = None,
    stage: str | None = None,
) -> LoadedModel:
    """Load a model from files that were verified; nothing is deserialized that is not trusted.

    Raises
    ------
    VerificationError
        If the model holds types that are not trusted, or runs code and that is not allowed.
    """
    described = describe(folder)
    info = ModelInfo(
        name=version.name if version else folder.name,
        version=version.version if version else 0,
        stage=stage,
        run_id=version.run_id if version else None,
        digest=version.digest if version else None,
        target_names=described.target_names,
        signature=described.signature,
    )
    return _loaded(info, folder, described, policy)


@dataclass(frozen=True)
class ModelDescription:
    """What an `MLmodel` file says of its model: words of the model's maker, to be doubted."""

    flavors: Mapping[str, Mapping[str, Any]]
    signature: tuple[Column, ...] | None  # None if it does not name and type its columns
    target_names: tuple[str, ...] | None


def describe(folder: Path) -> ModelDescription:
    """Read the `MLmodel` of a model folder.

    Raises
    ------
    VerificationError
        If there is none, or it is not one.
    """
    try:
        content = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        signature = content.get("signature") or {}
        inputs = json.loads(signature.get("inputs") or "null")
        names = (content.get("metadata") or {}).get(_TARGET_NAMES)
        if names is not None and not isinstance(names, list):
            raise TypeError(f"{_TARGET_NAMES} is no list")
        return ModelDescription(
            flavors={name: dict(flavor) for name, flavor in content["flavors"].items()},
            signature=columns_of(inputs),
            target_names=tuple(str(name) for name in names) if names else None,
        )
    except _UNREADABLE as error:
        reason = first_line(error)
        raise VerificationError(f"no readable MLmodel in the model's files: {reason}") from error


def _loaded(
    info: ModelInfo, folder: Path, described: ModelDescription, policy: TrustPolicy
) -> LoadedModel:
    """Load by the one format that was judged: another flavor in the same `MLmodel` counts not."""
    try:
        form, name = manifest.format_of(described.flavors)
    except manifest.RunsCode as reason:
        if policy.allow_code:
            return _with_code(info, folder, described)
        raise VerificationError(
            f"loading this model would run code of its own: {reason}; save it with skops, or, if "
            "you trust whoever made it, say --allow-code (allow_code=True)"
        ) from reason
    file = manifest.file_in(folder, name)
    return LoadedModel(info, _from_skops(file, policy)) if form == "skops" else _other(info, folder)


def _with_code(info: ModelInfo, folder: Path, described: ModelDescription) -> LoadedModel:
    if "sklearn" not in described.flavors:
        return _other(info, folder)
    import mlflow.sklearn

    return LoadedModel(info, mlflow.sklearn.load_model(str(folder)))


def _other(info: ModelInfo, folder: Path) -> LoadedModel:
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.pyfunc.load_model(str(folder))
    except (MlflowException, ImportError, OSError, ValueError) as error:
        raise VerificationError(f"MLflow cannot load it: {first_line(error)}") from error
    return LoadedModel(info, model, (ValueError, TypeError, MlflowException))


def _from_skops(path: Path, policy: TrustPolicy) -> Any:
    """Load with the list of ours: MLflow would trust whatever the model's own MLmodel lists."""
    untrusted = untrusted_types(path, policy)
    if untrusted:
        raise VerificationError(
            f"the model holds types that are not trusted: {', '.join(untrusted[:5])}; if you know "
            "them, say --trust TYPE (trust=[…]) or name them in REGISTRY_TOOLS_TRUST"
        )
    import skops.io

    try:
        model = skops.io.load(path, trusted=list(policy.trusted))
    except _BROKEN_SKOPS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error)}") from error
    if not hasattr(model, "predict"):
        raise VerificationError(f"{path.name} holds a {type(model).__name__}, which cannot predict")
    return model


def untrusted_types(path: Path, policy: TrustPolicy) -> list[str]:
    """Return the types in a skops file that neither skops nor the policy trusts, sorted.

    Raises
    ------
    VerificationError
        If it is no skops file.
    """
    import skops.io

    try:
        found = skops.io.get_untrusted_types(file=path)
    except _BROKEN_SKOPS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error)}") from error
    return sorted(set(found) - set(policy.trusted))

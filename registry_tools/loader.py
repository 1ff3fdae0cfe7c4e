"""From a model reference to a model that answers: resolved, fetched, verified, loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from registry_tools import integrity, registry
from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from registry_tools.refs import ModelRef, parse_ref
from registry_tools.registry import VersionInfo
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
        frame = frame_of(rows, self.info.signature)
        try:
            return np.asarray(answer(frame))
        except (ValueError, TypeError, MlflowException) as error:
            holes = np.argwhere(frame.isna().to_numpy())
            if len(holes):
                row, column = holes[0]
                raise InputError(
                    f"column {str(frame.columns[column])!r}, row {row}: missing value, and this "
                    "model was trained without any"
                ) from error
            raise InputError(f"the model cannot take these rows: {_one_line(error)}") from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `predict_proba`."""
        if self.info.target_names is not None:
            return self.info.target_names
        return tuple(str(name) for name in getattr(self.estimator, "classes_", ()))


@dataclass(frozen=True)
class TrustPolicy:
    """What the operator allows a model to contain."""

    types: tuple[str, ...] = ()  # beyond `integrity.TRUSTED_TYPES`
    allow_code: bool = False  # load what runs code of its own: pickle, Python models, code paths

    @classmethod
    def from_environment(cls) -> TrustPolicy:
        """Return the policy that REGISTRY_TOOLS_TRUST states: type names between commas."""
        names = os.environ.get("REGISTRY_TOOLS_TRUST", "").split(",")
        return cls(types=tuple(name.strip() for name in names if name.strip()))


def load_model(
    ref: str,
    stage: str | None = None,
    *,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
) -> LoadedModel:
    """Load a version of a registered model: its files are verified first, then its types.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3`, `iris/Production`, or the name alone with `stage`.
    stage
        The stage, when `ref` is a name.
    tracking_uri
        The registry; None takes what MLflow itself takes.
    trust
        Types that a model may contain beyond `integrity.TRUSTED_TYPES` and REGISTRY_TOOLS_TRUST.
    allow_code
        Also load formats that run code of their own while they load.

    Raises
    ------
    InvalidReference, NotFound, RegistryUnavailable, AccessDenied
        If the reference means nothing, or the registry cannot say what it means.
    VerificationError
        If the files are not those that were registered, or contain what is not trusted.
    """
    settings = TrustPolicy.from_environment()
    policy = TrustPolicy((*settings.types, *trust), allow_code)
    return load(registry.connect(tracking_uri), parse_ref(ref, stage=stage), policy)


def load(client: MlflowClient, ref: ModelRef, policy: TrustPolicy | None = None) -> LoadedModel:
    """Load what a reference means now, as `load_model`, from a client's registry."""
    version = registry.find_version(client, ref)
    with verified_files(client, version) as folder:
        return load_folder(folder, policy or TrustPolicy.from_environment(), version, ref.stage)


@contextlib.contextmanager
def verified_files(client: MlflowClient, version: VersionInfo) -> Iterator[Path]:
    """Yield a folder with a version's files, compared with the digest that it carries.

    Raises
    ------
    VerificationError
        If a file differs; the message names it.
    """
    with registry.model_files(client, version.name, version.version) as folder:
        if version.digest is not None:
            try:
                integrity.check_files(folder, version.digest)
            except VerificationError:
                # The manifest is fetched only now: it is needed to name the file.
                integrity.check_files(folder, version.digest, registry.manifest(client, version))
                raise
        yield folder


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
    names = (described.metadata or {}).get(_TARGET_NAMES)
    info = ModelInfo(
        name=version.name if version else folder.name,
        version=version.version if version else 0,
        stage=stage,
        run_id=version.run_id if version else None,
        digest=version.digest if version else None,
        target_names=tuple(names) if names else None,
        signature=signature_of(described),
    )
    return LoadedModel(info, _estimator(folder, described, policy))


def describe(folder: Path) -> Model:
    """Read the `MLmodel` of a model folder.

    Raises
    ------
    VerificationError
        If there is none, or it is not one.
    """
    try:
        return Model.load(str(folder))
    except (MlflowException, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as e:
        raise VerificationError(f"no readable MLmodel in the model's files: {_one_line(e)}") from e


def signature_of(described: Model) -> tuple[Column, ...] | None:
    """Return the columns that a model takes; None if it does not name and type them."""
    inputs = described.signature.inputs if described.signature else None
    return columns_of(inputs.to_dict() if inputs else None)


def _estimator(folder: Path, described: Model, policy: TrustPolicy) -> Any:
    flavor = described.flavors.get("sklearn", {})
    if flavor.get("serialization_format") == "skops" and not flavor.get("code"):
        return _from_skops(folder / str(flavor.get("pickled_model")), policy)
    reason = integrity.runs_code(described.flavors)
    if reason is not None and not policy.allow_code:
        raise VerificationError(
            f"loading this model would run code of its own: {reason}; save it with skops, or, if "
            "you trust whoever made it, say --allow-code (allow_code=True)"
        )
    if flavor:
        import mlflow.sklearn

        return mlflow.sklearn.load_model(str(folder))
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))


def _from_skops(path: Path, policy: TrustPolicy) -> Any:
    """Load with the list of ours: MLflow would trust whatever the model's own MLmodel lists."""
    untrusted = untrusted_types(path, policy)
    if untrusted:
        raise VerificationError(
            f"the model holds types that are not trusted: {', '.join(untrusted[:5])}; if you know "
            "them, say --trust TYPE (trust=[…]) or name them in REGISTRY_TOOLS_TRUST"
        )
    import skops.io

    return skops.io.load(path, trusted=[*integrity.TRUSTED_TYPES, *policy.types])


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
    # What skops raises on a broken file is not documented: a zip, JSON or type lookup may fail.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, BadZipFile) as error:
        raise VerificationError(f"{path.name} is not readable: {_one_line(error)}") from error
    return sorted(set(found) - {*integrity.TRUSTED_TYPES, *policy.types})


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""Write fitted estimators as models of MLflow in the skops format."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from registry_tools.errors import InputError, VerificationError, first_line
from registry_tools.models.trust_policy import TrustPolicy

# The packages that a model needs. Without this list, MLflow infers them in a subprocess, for seconds.
_REQUIREMENTS = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")
_EXAMPLE_ROWS = 5

Written = TypeVar("Written")


def save_skops(
    estimator: Any, folder: Path, rows: pd.DataFrame, target_names: Sequence[str], trust_policy: TrustPolicy
) -> None:
    """Write an estimator to a new folder as an MLflow model in the skops format.

    Parameters
    ----------
    estimator
        A fitted classifier or regressor.
    folder
        The folder to make.
    rows
        Rows that it takes, shape (rows, columns): they give the signature and the input example.
    target_names
        The class names in code order; empty if it predicts names or numbers.
    trust_policy
        The types that it may contain.

    Raises
    ------
    VerificationError
        If it contains other types.
    InputError
        If it cannot predict the rows.
    """
    import mlflow.sklearn

    if untrusted := untrusted_types(estimator, trust_policy.trusted):
        raise VerificationError(
            f"the model contains types that are not trusted: {', '.join(untrusted[:5])}; if you know them, "
            "give --trust TYPE (trust=[…]) or name them in REGISTRY_TOOLS_TRUST"
        )
    try:
        predicted = estimator.predict(rows)
    except (ValueError, TypeError) as error:
        raise InputError(f"the model cannot predict these rows: {first_line(error)}") from error
    write = partial(mlflow.sklearn.save_model, path=str(folder))
    write_skops(
        write, estimator, rows.head(_EXAMPLE_ROWS), rows, predicted, target_names, trust_policy.trusted
    )


def untrusted_types(estimator: Any, trusted: Sequence[str]) -> list[str]:
    """Return the types of an estimator that neither `trusted` lists nor skops trusts by default, sorted."""
    import skops.io

    found = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator)))
    return sorted(found - set(trusted))


def write_skops(
    write: Callable[..., Written],
    estimator: Any,
    example: pd.DataFrame,
    features: pd.DataFrame,
    predicted: Any,
    target_names: Sequence[str],
    trusted: Sequence[str],
    packages: Sequence[str] = (),
) -> Written:
    """Write an estimator in the skops format with a function of MLflow, and return its result.

    Parameters
    ----------
    write
        `save_model` or `log_model` of `mlflow.sklearn`, with the place to write to.
    estimator
        A fitted scikit-learn estimator.
    example
        A few rows, shape (rows, columns), which are stored as the input example.
    features, predicted
        Rows, shape (rows, columns), and predictions; MLflow infers the signature from them.
    target_names
        The class names in code order, which are stored as metadata of the model; empty if it predicts
        names or numbers.
    trusted
        The types that it may contain, in addition to the types that skops trusts by default.
    packages
        Packages that it needs besides the usual ones.
    """
    from mlflow.models import infer_signature

    requirements = (*_REQUIREMENTS, *packages)
    with warnings.catch_warnings():
        # An integer column is signed as such: coercion refuses a missing value by name.
        warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
        return write(
            estimator,
            signature=infer_signature(features, predicted),
            input_example=example,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in requirements],
            serialization_format="skops",
            skops_trusted_types=list(trusted),
            metadata={"target_names": list(target_names)} if target_names else None,
        )

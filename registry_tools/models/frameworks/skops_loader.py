"""Load skops files: only types on the allow-list of the operator are built."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from registry_tools.errors import VerificationError, first_line
from registry_tools.models.frameworks.native_format import FormatRunsCode, ModelFile, missing_package
from registry_tools.terminal import printable

# The errors of skops on a damaged file, which it does not document: its archive, JSON, arrays or types.
_SKOPS_ERRORS = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(RuntimeError, ImportError, MemoryError, BadZipFile, zlib.error),
)


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of a scikit-learn model, after checking the flavor.

    Raises
    ------
    FormatRunsCode
        If it was pickled.
    """
    if flavor.get("serialization_format") == "skops":
        return str(flavor.get("pickled_model"))
    raise FormatRunsCode(f"scikit-learn saved as {flavor.get('serialization_format', 'pickle')}")


def load(model: ModelFile) -> Any:
    """Return the estimator of the file by the allow-list of the operator.

    MLflow would trust the list in the `MLmodel`.

    Raises
    ------
    VerificationError
        If the file is damaged, has untrusted types, or an estimator that does harm.
    """
    import skops.io

    from registry_tools.models.inspection.archives import check_skops
    from registry_tools.models.inspection.estimators import inspect_model

    path, trust_policy = model.path, model.trust_policy
    check_skops(path)
    try:
        untrusted = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trust_policy.trusted))
        if untrusted:
            names = ", ".join(printable(name)[:200] for name in untrusted[:5])
            raise VerificationError(
                f"the model contains untrusted types: {names}; if you trust them, use --trust TYPE "
                "(trust=[…]) or add them to REGISTRY_TOOLS_TRUST"
            )
        estimator = skops.io.load(path, trusted=list(trust_policy.trusted))
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    except _SKOPS_ERRORS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error)}") from error
    if not hasattr(estimator, "predict"):
        raise VerificationError(f"{path.name} holds a {type(estimator).__name__}, which cannot predict")
    inspect_model(estimator, trust_policy)
    return estimator

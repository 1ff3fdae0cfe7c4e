"""Inspect each object in a loaded model before the model predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any

import numpy as np

from registry_tools.errors import VerificationError, error_summary
from registry_tools.models.inspection.native_arrays import check_native_arrays, check_stages
from registry_tools.models.inspection.parameters import check_parameters
from registry_tools.models.trust_policy import TrustPolicy

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
# The errors of a check if an attribute does not have the type that scikit-learn writes.
_CHECK_ERRORS = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, MemoryError),
)


def inspect_model(model: Any, trust_policy: TrustPolicy) -> None:
    """Refuse a model with an object that would crash the process or access files in a prediction.

    Raises
    ------
    VerificationError
        If the model is refused; the message names the class and its fault.
    """
    objects = list(_objects(model))
    # The last check predicts, so it comes after all others.
    for check in (partial(check_parameters, trusted=trust_policy.types), check_native_arrays, check_stages):
        for value in objects:
            try:
                check(value)
            except _CHECK_ERRORS as error:
                raise VerificationError(
                    f"the model holds a damaged {type(value).__name__} ({error_summary(error, 100)}): train "
                    "it again, or load another version"
                ) from error


def _objects(model: Any) -> Iterator[Any]:
    """Yield the model and each object in it once."""
    seen: dict[int, Any] = {}  # holds the objects, so that Python does not reuse their ids
    waiting = [model]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        waiting.extend(_parts(value))


def _parts(value: Any) -> list[Any]:
    """Return the objects that an object directly contains."""
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts += value
    elif isinstance(value, np.ndarray):
        parts += value.ravel().tolist() if value.dtype.hasobject else []
    elif isinstance(value, partial):
        parts += [value.func, value.args, value.keywords]
    elif isinstance(value, MethodType):
        parts.append(value.__self__)
    if not isinstance(value, type):
        parts += getattr(value, "__dict__", {}).values()
    return parts

"""The input schema of a model, columns or a tensor, and the requirements of each column type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import InputError, UnsupportedOperation

# The numeric types of MLflow signatures, and their NumPy types.
NUMBERS = {"double": "float64", "float": "float32", "long": "int64", "integer": "int32"}
INTEGER_BOUNDS = {"long": (-(1 << 63), (1 << 63) - 1), "integer": (-(1 << 31), (1 << 31) - 1)}
# Rounding to the type turns numbers from this limit on into infinity.
_FLOAT_LIMITS = {"double": float("inf"), "float": float((1 << 128) - (1 << 103))}

A_NUMBER, FINITE, BOOLEAN, TEXT = "a number", "a finite number", "true or false", "text"
_MISSING = "missing value, and the model needs one"
_NUMERIC: Any = (int, float, np.number, Decimal)
_BOOLEANS = (bool, np.bool_)
_LONGEST_SHOWN = 60
TENSORS_SUPPORTED = "only one tensor of numbers, without a name and of shape (-1, columns), is supported"


@dataclass(frozen=True)
class Column:
    """One input column of a model, with the name and type from its MLflow signature."""

    name: str
    type: str
    required: bool = True


def columns_of(inputs: Iterable[Mapping[str, Any]] | None) -> tuple[Column, ...] | None:
    """Read the columns from the `inputs` of an MLflow signature; None if one lacks a name or type."""
    columns = []
    for entry in inputs or ():
        if "name" not in entry or not isinstance(entry.get("type"), str) or entry["type"] == "tensor":
            return None
        columns.append(Column(entry["name"], entry["type"], entry.get("required", True)))
    return tuple(columns) or None


@dataclass(frozen=True)
class TensorSchema:
    """The input of a model that takes one array of shape (rows, columns) without column names."""

    dtype: str  # the name of a numeric NumPy type
    columns: int

    def __str__(self) -> str:
        return f"tensor {self.dtype} (-1, {self.columns})"


@dataclass(frozen=True)
class UnsupportedTensor:
    """A tensor signature that this package does not support, such as several tensors."""

    text: str

    def __str__(self) -> str:
        return f"tensor {self.text}"


def tensor_of(inputs: Iterable[Mapping[str, Any]] | None) -> TensorSchema | UnsupportedTensor | None:
    """Read the tensor from the `inputs` of an MLflow signature; None if it has no tensors.

    Raises
    ------
    LookupError, TypeError
        If a tensor lacks its type or shape, or NumPy does not know them.
    """
    entries = list(inputs or ())
    if all(entry.get("type") != "tensor" for entry in entries):
        return None
    specs = [(entry.get("name"), entry["tensor-spec"]) for entry in entries]
    name, first = specs[0]
    shape, dtype = tuple(first["shape"]), np.dtype(first["dtype"])
    is_rows = len(shape) == 2 and shape[0] == -1 and shape[1] > 0
    if len(specs) == 1 and name is None and is_rows and dtype.kind in "iuf":
        return TensorSchema(dtype.name, shape[1])
    texts = (f"{name or ''} {spec['dtype']} {tuple(spec['shape'])}".strip() for name, spec in specs)
    return UnsupportedTensor(", ".join(texts))


def columns_of_tensor(tensor: TensorSchema, names: Sequence[str], where: str) -> tuple[Column, ...]:
    """Return the columns that a model with a tensor signature takes from a table, by position.

    Parameters
    ----------
    tensor
        The type of the numbers and the number of columns.
    names, where
        The columns of the table, and its name in errors.

    Raises
    ------
    InputError
        If the table has more or fewer columns.
    UnsupportedOperation
        If no type of a column is that of the tensor.
    """
    kinds = {dtype: kind for kind, dtype in NUMBERS.items()}
    if tensor.dtype not in kinds:
        raise UnsupportedOperation(
            f"the model takes a {tensor}: files are scored with {', '.join(kinds)} only; use predict"
        )
    if len(names) != tensor.columns:
        raise InputError(
            f"{where}: {len(names)} columns, {tensor.columns} are needed: the model takes a {tensor}, its "
            f"columns by position; the file has {quoted_names(names)}"
        )
    kind = kinds[tensor.dtype]
    # Floats may be missing, and the model judges that. An integer cannot be.
    return tuple(Column(name, kind, required=kind in INTEGER_BOUNDS) for name in names)


def tensor_fault(candidate: object, champion: object) -> str | None:
    """Return why a candidate cannot serve the champion's clients; None if it can.

    Parameters
    ----------
    candidate, champion
        Their schemas. At least one is a tensor; the other may be columns. The champion's is None if
        there is no champion, or it has no signature.
    """
    for who, schema in (("candidate", candidate), ("champion", champion)):
        if isinstance(schema, UnsupportedTensor):
            return f"the {who} takes a {schema}: {TENSORS_SUPPORTED}"
    if champion is None:
        return None
    if isinstance(candidate, TensorSchema) and isinstance(champion, TensorSchema):
        if candidate.columns == champion.columns and np.can_cast(champion.dtype, candidate.dtype):
            return None
        return f"it takes a {candidate}, clients send a {champion}"
    taken, sent = (
        schema if isinstance(schema, TensorSchema) else "table with named columns"
        for schema in (candidate, champion)
    )
    return f"it takes a {taken}, clients send a {sent}"


@dataclass(frozen=True)
class CoercionFault:
    """A value that does not fit its column."""

    row: int  # from 0
    column: str
    reason: str | None  # the unmet requirement, such as `a number`; None if the value is missing
    value: Any = None

    def describe(self, with_value: bool = True) -> str:
        """Return the fault as text, with the value or, for callers who may not see it, its type."""
        if self.reason is None:
            return _MISSING
        value = self.value.item() if isinstance(self.value, np.generic) else self.value
        shown = repr(float(value) if isinstance(value, Decimal) else value)
        if not with_value:
            shown = f"a value of type {type(value).__name__}"
        elif len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}…"
        return f"{shown} is not {self.reason}"


def whole_number(kind: str) -> str:
    """Return the requirement of an integer column, for messages."""
    return f"a whole number that {kind} holds"


def unmet_requirement(value: Any, kind: str) -> str | None:
    """Return the requirement of a column type that a value does not meet; None if it fits."""
    if isinstance(value, np.generic):
        value = value.item()  # NumPy would round the bounds to the type of the value
    if kind == "boolean":
        return None if isinstance(value, _BOOLEANS) else BOOLEAN
    if kind == "string":
        return None if isinstance(value, (str, date)) else TEXT
    if kind not in NUMBERS:
        return None
    if isinstance(value, _BOOLEANS) or not isinstance(value, _NUMERIC):
        return A_NUMBER
    if kind in INTEGER_BOUNDS:
        low, high = INTEGER_BOUNDS[kind]
        return None if low <= value <= high and value == value // 1 else whole_number(kind)
    try:
        return None if abs(float(value)) < _FLOAT_LIMITS[kind] else FINITE
    except OverflowError:  # an integer of very many digits
        return FINITE


def reads_as_number(value: Any) -> bool:
    """Return whether `float` accepts a value."""
    try:
        float(value.item() if isinstance(value, np.generic) else value)
    except (TypeError, ValueError):
        return False
    except OverflowError:  # an integer of very many digits
        pass
    return True


def fits_integer(numbers: npt.NDArray[Any], kind: str) -> npt.NDArray[np.bool_]:
    """Return a mask of the numbers that an integer type can hold, shape (rows,)."""
    low, high = INTEGER_BOUNDS[kind]
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64, copy=False)  # float16 cannot hold the bounds
        return (np.trunc(numbers) == numbers) & (numbers >= low) & (numbers < float(high) + 1)
    if numbers.dtype.kind == "u":
        return np.asarray(numbers <= high)
    return (numbers >= low) & (numbers <= high)


def quoted_names(names: Iterable[str]) -> str:
    """Return names in quotes, separated by commas."""
    return ", ".join(repr(name) for name in names)

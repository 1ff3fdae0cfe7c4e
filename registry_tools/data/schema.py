"""The columns that a model takes, and the values of one row read from text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry_tools.errors import InputError

# The types that hold numbers, and what numpy calls them.
NUMBERS = {"double": "float64", "float": "float32", "long": "int64", "integer": "int32"}


@dataclass(frozen=True)
class Column:
    """One input of a model, named and typed as in its MLflow signature."""

    name: str
    type: str
    required: bool = True


def columns_of(inputs: Iterable[Mapping[str, Any]] | None) -> tuple[Column, ...] | None:
    """Read the `inputs` of an MLflow signature; None if it does not name and type its columns."""
    columns = []
    for entry in inputs or ():
        if "name" not in entry or not isinstance(entry.get("type"), str):
            return None
        columns.append(Column(entry["name"], entry["type"], entry.get("required", True)))
    return tuple(columns) or None


def values_from_text(texts: Sequence[str], columns: Sequence[Column] | None) -> list[Any]:
    """Read the values of one row from text: numbers where the column holds numbers.

    Raises
    ------
    InputError
        If there are too many or too few, or one is not what its column holds.
    """
    if columns is not None and len(texts) != len(columns):
        raise InputError(
            f"{len(texts)} features given, {len(columns)} are needed: "
            f"{quoted_names(c.name for c in columns)}"
        )
    types = [c.type for c in columns] if columns is not None else ["double"] * len(texts)
    names = [c.name for c in columns] if columns is not None else range(len(texts))
    return [
        _value(t.strip(), kind, name) for t, kind, name in zip(texts, types, names, strict=True)
    ]


def _value(text: str, kind: str, name: object) -> Any:
    if kind not in NUMBERS and kind != "boolean":
        return text or None
    if text == "":
        return None
    if kind == "boolean":
        if text.lower() not in {"true", "false"}:
            raise InputError(f"feature {name!r}: {text!r} is not true or false")
        return text.lower() == "true"
    try:
        return int(text) if kind in {"long", "integer"} and "." not in text else float(text)
    except ValueError:
        raise InputError(f"feature {name!r}: {text!r} is not a number") from None


def quoted_names(names: Iterable[str]) -> str:
    """Return names quoted, with commas between."""
    return ", ".join(repr(name) for name in names)

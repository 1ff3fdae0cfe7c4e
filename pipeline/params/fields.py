"""The kinds of parameters, and the base class of all parameters, which parses and checks them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import timedelta
from typing import Any, TypeVar

from pipeline.errors import InvalidParameter
from registry_tools.errors import InvalidReference

ParamsType = TypeVar("ParamsType", bound="CheckedParams")
AUTO = "auto"  # value of a parameter: the table decides
NONE = {"", "none"}  # texts of a parameter without a value
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_CENTURY = timedelta(days=36_500)
_OUT_OF_BOUNDS = (ValueError, LookupError, OverflowError, RecursionError, csv.Error)


@dataclass(frozen=True)
class Kind:
    """A kind of parameter: how to parse its text, its bounds in words, and a check of them."""

    convert: Callable[[str], Any]  # raises an error of `_OUT_OF_BOUNDS` if it cannot
    bounds: str
    accepts: Callable[[Any], object] = lambda _: True
    keeps_spaces: bool = False  # around the text

    def parse(self, text: str) -> Any:
        """Return the value of a text; raise an error of `_OUT_OF_BOUNDS` if there is none."""
        value = self.convert(text if self.keeps_spaces else text.strip())
        if not self.accepts(value):
            raise ValueError
        return value


def integer(low: int, high: int = 2**63 - 1, bounds: str = "") -> Kind:
    """Return the kind of whole numbers from `low` to `high`."""
    return Kind(int, bounds or f"a whole number from {low} to {high}", lambda number: low <= number <= high)


def choice(choices: Collection[str], bounds: str = "") -> Kind:
    """Return the kind that accepts only the given choices."""
    return Kind(str, bounds or f"one of {', '.join(choices)}", choices.__contains__)


def nonempty(bounds: str) -> Kind:
    """Return the kind of any text except empty text and spaces."""
    return Kind(str, bounds, len)


def optional(kind: Kind, bounds: str = "") -> Kind:
    """Return a kind for which `none` and empty text are None, and any other text is of the given kind."""
    return Kind(
        lambda text: None if text in NONE else kind.parse(text),
        bounds or f"{kind.bounds}, or none",
        keeps_spaces=kind.keeps_spaces,
    )


def column(bounds: str = "the name of a column, or none") -> Kind:
    """Return the kind of the name of a column, in which spaces are kept, or None."""
    return optional(Kind(str, "", keeps_spaces=True), bounds)


def duration(bounds: str, least: timedelta = timedelta(0)) -> Kind:
    """Return the kind of times such as `30min`, `12h` or `7d`, from `least` to a century."""
    return Kind(_timedelta, bounds, lambda time: least <= time <= _CENTURY)


def _timedelta(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text)
    if found is None:
        raise ValueError
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])


def _column_names(text: str) -> tuple[str, ...]:
    """Parse column names as one line of CSV: put a name that contains a comma in quotes."""
    return () if text in NONE else tuple(next(csv.reader([text], skipinitialspace=True, strict=True)))


def _column_types(text: str) -> dict[str, str]:
    """Parse `COLUMN:TYPE` separated by commas, as `_column_names` parses names; or a JSON object."""
    if text.startswith("{"):
        return _json_object(text)
    pairs = [pair.rpartition(":") for pair in _column_names(text)]
    types = {name: kind for name, _, kind in pairs}
    if len(types) < len(pairs):
        raise ValueError
    return types


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError
    return value


def _holdout_size(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _is_weight(value: object) -> bool:
    return type(value) in {int, float} and 0 < value < 1e9  # type: ignore[operator]


BOOLEAN = Kind(lambda text: {"true": True, "false": False}[text.lower()], "true or false")
COLUMN_NAMES = Kind(
    _column_names,
    "different column names separated by commas, or none",
    lambda names: "" not in names and len(set(names)) == len(names),
)
COLUMN_TYPES = Kind(
    _column_types,
    "COLUMN:TYPE separated by commas, with the types text and date, or none",
    lambda types: "" not in types and all(kind in ("text", "date") for kind in types.values()),
)
CLASS_WEIGHTS = Kind(
    lambda text: text if text == "balanced" else _json_object(text),
    "balanced, or a JSON object of weights by class name, such as '{\"yes\": 5}'",
    lambda weights: weights == "balanced" or (weights and all(map(_is_weight, weights.values()))),
)
FOLDS = Kind(
    str,
    "a number of folds from 2 to 100, or folds x repeats such as 5x3",
    re.compile(r"([2-9]|[1-9]\d|100)(x([1-9]\d?|100))?", re.ASCII).fullmatch,
)
HOLDOUT_SIZE = Kind(
    _holdout_size,
    "a fraction above 0 and below 1, or a whole number of rows from 1",
    lambda size: size >= 1 if isinstance(size, int) else 0 < size < 1,
)
JSON_OBJECT = Kind(_json_object, "a JSON object, such as '{\"C\": 0.5}'")
SIGNIFICANCE_LEVEL = Kind(float, "a number from 1e-9 to 0.5", lambda level: 1e-9 <= level <= 0.5)


def param(default: Any, kind: Kind, help_text: str) -> Any:
    """Return the dataclass field of a parameter.

    Parameters
    ----------
    default
        The default value.
    kind
        Its kind, with the bounds.
    help_text
        One sentence that describes the parameter.
    """
    how = {"parse": kind.parse, "bounds": kind.bounds, "help": help_text}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=how)
    return field(default=default, metadata=how)


@dataclass(frozen=True)
class CheckedParams:
    """Base class of parameters with defaults and bounds; the constructor checks the bounds."""

    @classmethod
    def from_text(cls: type[ParamsType], texts: Mapping[str, str]) -> ParamsType:
        """Parse parameters from text, as the command line gives it; a missing parameter gets its default.

        Raises
        ------
        InvalidParameter
            If a parameter is out of bounds; the message names parameter, value and bounds.
        """
        return cls(**{spec.name: texts[spec.name] for spec in fields(cls) if spec.name in texts})

    def __post_init__(self) -> None:
        """Parse the parameters that are text, and check the bounds of each.

        Raises
        ------
        InvalidParameter
            If a parameter is out of bounds.
        """
        for spec in fields(self):
            # The class is frozen, so an ordinary assignment raises.
            object.__setattr__(self, spec.name, _parse(spec, as_text(getattr(self, spec.name))))

    def as_text(self) -> dict[str, str]:
        """Return the parameters as text, as MLflow logs them; parameters without a value are left out."""
        texts = {spec.name: as_text(getattr(self, spec.name)) for spec in fields(self)}
        return {name: text for name, text in texts.items() if text not in {"", "none", "{}"}}


def as_text(value: Any) -> str:
    """Return a value as the text that `from_text` parses; MLproject states its defaults in this form."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        unit = next(unit for unit, size in _SECONDS.items() if seconds % size == 0 or unit == "s")
        return f"{seconds / _SECONDS[unit]:.15g}{unit}"
    if isinstance(value, tuple):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue() or "none"
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)


def _parse(spec: Field[Any], text: str) -> Any:
    try:
        return spec.metadata["parse"](text)
    except InvalidReference as error:
        raise InvalidParameter(spec.name, text, str(error)) from None
    except _OUT_OF_BOUNDS:
        raise InvalidParameter(spec.name, text, f"must be {spec.metadata['bounds']}") from None

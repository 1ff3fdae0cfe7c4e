"""Parse and check parameters: functions from text to values, and the base class of all parameters.

Each parsing function raises ValueError if the text is out of bounds; `CheckedParams` turns it into an
`InvalidParameter` that names parameter, value and bounds.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import timedelta
from typing import Any, TypeVar

from pipeline.errors import InvalidParameter
from registry_tools.errors import InvalidReference

ParamsType = TypeVar("ParamsType", bound="CheckedParams")
AUTO = "auto"  # value of a parameter: the table decides
_MAX_SECONDS = 36_500 * 86_400  # a century
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a function that parses a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that parses `none` and empty text as None, and other text with `parse`."""
    return lambda text: None if text in {"", "none"} else parse(text)


def column_name(text: str) -> str | None:
    """Parse the name of a column; spaces are kept, and `none` and empty text give None."""
    return None if text in {"", "none"} else text


def column_names(text: str) -> tuple[str, ...]:
    """Parse column names as one line of CSV: put a name that contains a comma in quotes."""
    if text in {"", "none"}:
        return ()
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        raise ValueError from None
    if "" in names or len(set(names)) < len(names):
        raise ValueError
    return tuple(names)


def choice(choices: tuple[str, ...]) -> Callable[[str], str]:
    """Return a function that accepts only the given choices."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def holdout_size(text: str) -> float | int:
    """Parse a whole number of rows, or a fraction above 0 and below 1."""
    try:
        rows = int(text)
    except ValueError:
        fraction = float(text)
        if not 0 < fraction < 1:
            raise ValueError from None
        return fraction
    if rows < 1:
        raise ValueError
    return rows


def fold_numbers(text: str) -> str:
    """Accept a number of folds, or numbers of folds and repeats such as `5x3`."""
    found = re.fullmatch(r"(\d{1,3})(?:x(\d{1,3}))?", text)
    if found is None or not 2 <= int(found[1]) <= 100 or not 1 <= int(found[2] or 1) <= 100:
        raise ValueError
    return text


def column_types(text: str) -> dict[str, str]:
    """Parse `COLUMN:TYPE` separated by commas, as `column_names` parses names; or a JSON object."""
    if text.startswith("{"):
        types = json_object(text)
    else:
        pairs = [pair.rpartition(":") for pair in column_names(text)]
        types = {name: kind for name, _, kind in pairs}
        if len(types) < len(pairs):
            raise ValueError
    if "" in types or not set(types.values()) <= {"text", "date"}:
        raise ValueError
    return types


def class_weights(text: str) -> str | dict[str, float] | None:
    """Parse `balanced`, a JSON object of weights above 0 by class name, or `none`."""
    if text in {"", "none", "balanced"}:
        return text if text == "balanced" else None
    weights = json_object(text)
    numbers = [weight for weight in weights.values() if type(weight) in {int, float}]
    if len(numbers) < len(weights) or not all(0 < number < 1e9 for number in numbers) or not weights:
        raise ValueError
    return weights


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError from None
    if not isinstance(value, dict):
        raise ValueError
    return value


def boolean(text: str) -> bool:
    """Parse `true` or `false`, in upper or lower case."""
    if text.lower() not in {"true", "false"}:
        raise ValueError
    return text.lower() == "true"


def nonempty(text: str) -> str:
    """Accept any text except empty text and spaces."""
    if not text.strip():
        raise ValueError
    return text


def significance_level(text: str) -> float:
    """Parse the significance level of a test, a number from 1e-9 to 0.5."""
    number = float(text)
    if not 1e-9 <= number <= 0.5:
        raise ValueError
    return number


def duration(text: str) -> timedelta:
    """Parse a time such as `30min`, `12h` or `7d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found is not None else -1.0
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError
    return timedelta(seconds=seconds)


def positive_duration(text: str) -> timedelta:
    """Read a time above zero."""
    time = duration(text)
    if not time:
        raise ValueError
    return time


def param(default: Any, parse: Callable[[str], Any], bounds: str, help_text: str) -> Any:
    """Return the dataclass field of a parameter.

    Parameters
    ----------
    default
        The default value.
    parse
        Converts text to the value; raises ValueError if the text is out of bounds.
    bounds
        The bounds in words, for the help and for error messages.
    help_text
        One sentence that describes the parameter.
    """
    how = {"parse": parse, "bounds": bounds, "help": help_text}
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
        values = {spec.name: _parse(spec, texts[spec.name]) for spec in fields(cls) if spec.name in texts}
        return cls(**values)

    def __post_init__(self) -> None:
        """Check the bounds of each parameter.

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
    plain = text if spec.metadata["parse"] is column_name else text.strip()
    try:
        return spec.metadata["parse"](plain)
    except InvalidReference as error:
        raise InvalidParameter(spec.name, text, str(error)) from None
    except (ValueError, OverflowError):
        bounds = f"must be {spec.metadata['bounds']}"
        raise InvalidParameter(spec.name, text, bounds) from None

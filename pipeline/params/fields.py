"""Parameters as text and as values: how each is read, and what it is out of its bounds."""

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
_MAX_SECONDS = 36_500 * 86_400  # seconds: a century
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text in {"", "none"} else parse(text)


def column_name(text: str) -> str | None:
    """Take a column's name as it stands, spaces and all."""
    return None if text in {"", "none"} else text


def column_names(text: str) -> tuple[str, ...]:
    """Read names as a line of CSV: one that holds a comma stands in quotes."""
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
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def holdout_size(text: str) -> float | int:
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


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError from None
    if not isinstance(value, dict):
        raise ValueError
    return value


def boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError
    return text.lower() == "true"


def nonempty(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


def significance_level(text: str) -> float:
    """Read the significance level of a test."""
    number = float(text)
    if not 1e-9 <= number <= 0.5:
        raise ValueError
    return number


def duration(text: str) -> timedelta:
    """Read a time such as `30min`, `12h` or `7d`."""
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
    how = {"parse": parse, "bounds": bounds, "help": help_text}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=how)
    return field(default=default, metadata=how)


@dataclass(frozen=True)
class CheckedParams:
    """Parameters with defaults and bounds. Making one checks the bounds."""

    @classmethod
    def from_text(cls: type[ParamsType], texts: Mapping[str, str]) -> ParamsType:
        """Read parameters from text, such as a command line gives; defaults for what is absent.

        Raises
        ------
        InvalidParameter
            If one is out of its bounds; names parameter, value and bounds.
        """
        values = {spec.name: _parse(spec, texts[spec.name]) for spec in fields(cls) if spec.name in texts}
        return cls(**values)

    def __post_init__(self) -> None:
        """Check the bounds of each value.

        Raises
        ------
        InvalidParameter
            If one is out of its bounds.
        """
        for spec in fields(self):
            # The dataclass is frozen for everybody else.
            object.__setattr__(self, spec.name, _parse(spec, as_text(getattr(self, spec.name))))

    def as_text(self) -> dict[str, str]:
        """Return the parameters as MLflow logs them, what was not given left out."""
        texts = {spec.name: as_text(getattr(self, spec.name)) for spec in fields(self)}
        return {name: text for name, text in texts.items() if text not in {"", "none", "{}"}}


def as_text(value: Any) -> str:
    """Return the text that `from_text` reads as this value, and that MLproject has as default."""
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

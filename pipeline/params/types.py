"""The types of parameters, and the base class of all parameters.

A value comes from Python, from YAML, or as text from the command line; each type accepts all three.
pydantic checks the bounds. The text in an annotated type describes them, for messages and for the help text.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import InvalidParameter
from registry_tools.errors import InvalidReference
from registry_tools.refs import model_name, stage_name

ParamsType = TypeVar("ParamsType", bound="Params")
AUTO = "auto"  # value of a parameter: the table decides
_NONE = {"", "none"}  # texts of a parameter without a value
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_CENTURY = timedelta(days=36_500)


def _from_text(parse: Callable[[str], Any], empty: Any = None) -> BeforeValidator:
    """Return a validator that parses text and keeps any other value, with `empty` for None."""

    def validate(value: Any) -> Any:
        try:
            return parse(value) if isinstance(value, str) else empty if value is None else value
        except (csv.Error, RecursionError):
            raise ValueError from None

    return BeforeValidator(validate)


def _number(value: Any) -> Any:
    """Parse the text of a number; YAML and Python give numbers, and NumPy its own."""
    if not isinstance(value, str):
        return value.item() if hasattr(value, "item") else value
    try:
        return int(value)
    except ValueError:
        return float(value)


def _columns(text: str) -> tuple[str, ...]:
    """Parse column names as one line of CSV: put a name that contains a comma in quotes."""
    return () if text in _NONE else tuple(next(csv.reader([text], skipinitialspace=True, strict=True)))


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if "" in names or len(set(names)) < len(names):
        raise ValueError
    return names


def _column_types(text: str) -> Any:
    """Parse `COLUMN:TYPE` separated by commas, as `_columns` parses names; or a JSON object."""
    if text.startswith("{"):
        return json.loads(text)
    pairs = [pair.rpartition(":") for pair in _columns(text)]
    _distinct(tuple(name for name, _, _ in pairs))
    return {name: kind for name, _, kind in pairs}


def _duration(text: str) -> timedelta | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    return timedelta(seconds=seconds) if seconds <= _CENTURY.total_seconds() else None


# YAML reads `true` and `null` as no text.
Text = BeforeValidator(lambda value: value if isinstance(value, str) else as_text(value))
OrNone = _from_text(lambda text: None if text.strip() in _NONE else text)
Integer = Annotated[int, BeforeValidator(_number), Field(strict=True, le=2**63 - 1)]
Boolean = Annotated[
    bool, _from_text(lambda text: json.loads(text.lower())), Field(strict=True), "true or false"
]
JsonObject = Annotated[dict[str, Any], _from_text(json.loads, {}), "a JSON object, such as '{\"C\": 0.5}'"]
Column = Annotated[str | None, OrNone, "the name of a column, or none"]
ColumnNames = Annotated[
    tuple[str, ...],
    _from_text(_columns, ()),
    AfterValidator(_distinct),
    "different column names separated by commas, or none (in a file, quote a name that contains a colon)",
]
ColumnTypes = Annotated[
    dict[Annotated[str, Field(min_length=1)], Literal["text", "date"]],
    _from_text(_column_types, {}),
    "COLUMN:TYPE separated by commas, with the types text and date, or none",
]
_Weight = (
    Annotated[int, Field(strict=True, gt=0, lt=10**9)] | Annotated[float, Field(strict=True, gt=0, lt=1e9)]
)
ClassWeights = Annotated[
    Literal["balanced"] | Annotated[dict[str, _Weight], Field(min_length=1)] | None,
    _from_text(lambda text: text if text == "balanced" else json.loads(text)),
    OrNone,
    "balanced, or a JSON object of weights by class name, such as '{\"yes\": 5}', or none",
]
Folds = Annotated[
    str,
    Field(pattern=r"^([2-9]|[1-9][0-9]|100)(x([1-9][0-9]?|100))?$"),
    "a number of folds from 2 to 100, or folds x repeats such as 5x3",
]
HoldoutSize = Annotated[
    Annotated[int, Field(strict=True, ge=1)] | Annotated[float, Field(strict=True, gt=0, lt=1)],
    BeforeValidator(_number),
    "a fraction above 0 and below 1, or a whole number of rows from 1",
]
SignificanceLevel = Annotated[
    float, BeforeValidator(_number), Field(strict=True, ge=1e-9, le=0.5), "a number from 1e-9 to 0.5"
]
Duration = Annotated[timedelta, _from_text(_duration), Field(strict=True, ge=timedelta(0), le=_CENTURY)]
ModelName = Annotated[str, AfterValidator(model_name), "the name of a registered model"]
StageName = Annotated[str, AfterValidator(stage_name), "a legal alias, such as staging"]


class Params(BaseModel):
    """Base class of parameters with defaults and bounds; the constructor checks the bounds."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        coerce_numbers_to_str=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",  # in the configuration file, NaN would become null
    )

    def __init__(self, **values: Any) -> None:
        """Check the bounds of each parameter, and that the parameters are consistent.

        Raises
        ------
        InvalidParameter
            If a parameter is out of bounds, or two contradict each other. The message names parameter,
            value and bounds.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._first_fault(error, values) from None

    @classmethod
    def _first_fault(cls, error: ValidationError, values: Mapping[str, Any]) -> InvalidParameter:
        fault = error.errors(include_url=False)[0]
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, InvalidParameter):
            return cause
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, cls.model_fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(cls.model_fields)}"
            reason = f"there is no such parameter; {hint}"
        elif isinstance(cause, InvalidReference):
            reason = str(cause)
        else:
            reason = f"must be {bounds_of(cls.model_fields[name])}"
        return InvalidParameter(name, as_text(values[name]), reason)

    def replace(self: ParamsType, **changes: Any) -> ParamsType:
        """Return parameters with other values, which are checked again."""
        return type(self)(**{**dict(self), **changes})

    def as_text(self) -> dict[str, str]:
        """Return the parameters as text, as MLflow logs them, without those that have no value by default."""
        usual = type(self).model_fields
        return {
            name: as_text(value)
            for name, value in self
            if value not in (None, (), {}) or value != usual[name].default
        }

    def as_yaml(self) -> str:
        """Return a configuration file with the values that are not the defaults."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), allow_unicode=True)


def bounds_of(field: FieldInfo) -> str:
    """Return the bounds of a parameter in words."""
    for each in reversed(field.metadata):  # the type of the field may replace the bounds of a shared type
        if isinstance(each, str):
            return each
    if choices := get_args(field.annotation):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    low, high = (
        next(getattr(each, name) for each in field.metadata if hasattr(each, name)) for name in ("ge", "le")
    )
    return f"a whole number from {low} to {high}"


def as_text(value: Any) -> str:
    """Return a value as text that the constructor accepts; MLproject states its defaults in this form."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        unit = next(unit for unit, size in _SECONDS.items() if seconds % size == 0 or unit == "s")
        return f"{seconds / _SECONDS[unit]:.15g}{unit}"
    if isinstance(value, (tuple, list)):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue() or "none"
    if isinstance(value, Mapping):
        return json.dumps({str(key): each for key, each in value.items()}, sort_keys=True, default=str)
    return str(value)

"""The types of parameters, and the base class of all parameters.

A value comes from Python, from YAML, or as text from the command line; each type accepts all three.
pydantic checks the bounds, and `Bounds` describes them in words, for messages and for the help text.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from pipeline.errors import InvalidParameter
from registry_tools.errors import InvalidReference
from registry_tools.refs import model_name, stage_name

ParamsType = TypeVar("ParamsType", bound="Params")
AUTO = "auto"  # value of a parameter: the table decides
_NONE = {"", "none"}  # texts of a parameter without a value
_EMPTY = {"", "none", "{}"}
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_CENTURY = timedelta(days=36_500)


@dataclass(frozen=True)
class Bounds:
    """The accepted values of a type in words."""

    text: str


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip() in _NONE else value


def _number(value: Any) -> Any:
    """Parse the text of a number; YAML and Python give numbers, and NumPy its own."""
    if not isinstance(value, str):
        return value.item() if hasattr(value, "item") else value
    try:
        return int(value)
    except ValueError:
        return float(value)


def _boolean(value: Any) -> Any:
    return (
        {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value
    )


def _json_object(value: Any) -> Any:
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        return json.loads(value)
    except RecursionError:
        raise ValueError from None


def _columns(value: Any) -> Any:
    """Parse column names as one line of CSV: put a name that contains a comma in quotes."""
    if not isinstance(value, str):
        return () if value is None else value
    try:
        return () if value in _NONE else tuple(next(csv.reader([value], skipinitialspace=True, strict=True)))
    except csv.Error:
        raise ValueError from None


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if "" in names or len(set(names)) < len(names):
        raise ValueError
    return names


def _column_types(value: Any) -> Any:
    """Parse `COLUMN:TYPE` separated by commas, as `_columns` parses names; or a JSON object."""
    if not isinstance(value, str) or value.startswith("{"):
        return _json_object(value)
    pairs = [pair.rpartition(":") for pair in _columns(value)]
    return dict(
        zip(_distinct(tuple(name for name, _, _ in pairs)), (kind for *_, kind in pairs), strict=True)
    )


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", value.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    return timedelta(seconds=seconds) if seconds <= _CENTURY.total_seconds() else None


def _reference(check: Callable[[str], str]) -> AfterValidator:
    """Return the check of a name of the registry, which gives its own reason."""

    def validate(text: str) -> str:
        try:
            return check(text)
        except InvalidReference as error:
            raise PydanticCustomError("reference", "{reason}", {"reason": str(error)}) from error

    return AfterValidator(validate)


# YAML reads `true` and `null` as no text.
Text = BeforeValidator(lambda value: value if isinstance(value, str) else as_text(value))
OrNone = BeforeValidator(_none)
Integer = Annotated[int, BeforeValidator(_number), Field(strict=True, le=2**63 - 1)]
Boolean = Annotated[bool, BeforeValidator(_boolean), Field(strict=True), Bounds("true or false")]
JsonObject = Annotated[
    dict[str, Any], BeforeValidator(_json_object), Bounds("a JSON object, such as '{\"C\": 0.5}'")
]
Column = Annotated[str | None, OrNone, Bounds("the name of a column, or none")]
ColumnNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_columns),
    AfterValidator(_distinct),
    Bounds("different column names separated by commas, or none"),
]
ColumnTypes = Annotated[
    dict[Annotated[str, Field(min_length=1)], Literal["text", "date"]],
    BeforeValidator(_column_types),
    Bounds("COLUMN:TYPE separated by commas, with the types text and date, or none"),
]
_Weight = (
    Annotated[int, Field(strict=True, gt=0, lt=10**9)] | Annotated[float, Field(strict=True, gt=0, lt=1e9)]
)
ClassWeights = Annotated[
    Literal["balanced"] | Annotated[dict[str, _Weight], Field(min_length=1)] | None,
    BeforeValidator(lambda value: value if value in (None, "balanced") else _json_object(value)),
    OrNone,
    Bounds("balanced, or a JSON object of weights by class name, such as '{\"yes\": 5}', or none"),
]
Folds = Annotated[
    str,
    Field(pattern=r"^([2-9]|[1-9][0-9]|100)(x([1-9][0-9]?|100))?$"),
    Bounds("a number of folds from 2 to 100, or folds x repeats such as 5x3"),
]
HoldoutSize = Annotated[
    Annotated[int, Field(strict=True, ge=1)] | Annotated[float, Field(strict=True, gt=0, lt=1)],
    BeforeValidator(_number),
    Bounds("a fraction above 0 and below 1, or a whole number of rows from 1"),
]
SignificanceLevel = Annotated[
    float,
    BeforeValidator(_number),
    Field(strict=True, ge=1e-9, le=0.5, allow_inf_nan=False),
    Bounds("a number from 1e-9 to 0.5"),
]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(strict=True, ge=timedelta(0), le=_CENTURY)]
ModelName = Annotated[str, _reference(model_name), Bounds("the name of a registered model")]
StageName = Annotated[str, _reference(stage_name), Bounds("a legal alias, such as staging")]


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
        context = fault.get("ctx", {})
        if isinstance(context.get("error"), InvalidParameter):
            return context["error"]
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, cls.model_fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(cls.model_fields)}"
            reason = f"there is no such parameter; {hint}"
        elif fault["type"] == "reference":
            reason = context["reason"]
        else:
            reason = f"must be {bounds_of(cls.model_fields[name])}"
        return InvalidParameter(name, as_text(values[name]), reason)

    def replace(self: ParamsType, **changes: Any) -> ParamsType:
        """Return parameters with other values, which are checked again."""
        return type(self)(**{**dict(self), **changes})

    def as_text(self) -> dict[str, str]:
        """Return the parameters as text, as MLflow logs them, without those that have no value by default."""
        usual = type(self).model_fields
        texts = {name: as_text(value) for name, value in self}
        return {
            name: text
            for name, text in texts.items()
            if text not in _EMPTY or text != as_text(usual[name].default)
        }

    def as_yaml(self) -> str:
        """Return a configuration file with the values that are not the defaults."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), allow_unicode=True)


def bounds_of(field: FieldInfo) -> str:
    """Return the bounds of a parameter in words."""
    for each in reversed(field.metadata):  # the type of the field may replace the bounds of a shared type
        if isinstance(each, Bounds):
            return each.text
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

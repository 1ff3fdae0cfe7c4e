"""The parameters of a training run: types, defaults and bounds, in one place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import InvalidParameter
from pipeline.models import MODELS, models_that_take
from registry_tools.errors import InvalidReference
from registry_tools.refs import model_name, stage_name

SPLITS = ("stratified", "hash")
ENGINES = ("local", "spark")
ALL = "all"  # instead of a model: each of them
Params = TypeVar("Params", bound="TrainParams")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def _optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text in {"", "none"} else parse(text)


def _column(text: str) -> str | None:
    """Take a column's name as it stands, spaces and all."""
    return None if text in {"", "none"} else text


def _columns(text: str) -> tuple[str, ...]:
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


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def _test_size(text: str) -> float | int:
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


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError from None
    if not isinstance(value, dict):
        raise ValueError
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError
    return text.lower() == "true"


def _nonempty(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


def _param(default: Any, parse: Callable[[str], Any], bounds: str, help_text: str) -> Any:
    how = {"parse": parse, "bounds": bounds, "help": help_text}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=how)
    return field(default=default, metadata=how)


@dataclass(frozen=True)
class TrainParams:
    """What a training run depends on. Making one checks the bounds that stand here."""

    data: str = _param(
        "iris", _nonempty, "'iris', or the path of a .csv or .parquet file", "The table."
    )
    target: str | None = _param(
        None, _column, "the name of a column", "The label column; a table needs it."
    )
    drop: tuple[str, ...] = _param(
        (),
        _columns,
        "different names of columns between commas, or none",
        "Columns of a table to leave out, such as what only names a row.",
    )
    model: str = _param(
        "logistic_regression",
        _one_of(tuple(MODELS)),
        f"one of {', '.join(MODELS)}",
        "The estimator.",
    )
    model_params: Mapping[str, Any] = _param(
        {}, _json_object, "a JSON object, such as '{\"C\": 0.5}'", "Arguments of the estimator."
    )
    max_iter: int = _param(
        200,
        _integer(1, 1_000_000),
        "a whole number from 1 to 1000000",
        f"Iterations at most, of {models_that_take('max_iter')}.",
    )
    test_size: float | int = _param(
        0.2,
        _test_size,
        "a fraction above 0 and below 1, or a whole number of rows from 1",
        "Rows held out: a fraction or a number.",
    )
    random_state: int = _param(
        42,
        _integer(0, 2**32 - 1),
        "a whole number from 0 to 4294967295",
        "The seed of split, subset and estimator.",
    )
    split: str = _param(
        "stratified",
        _one_of(SPLITS),
        "stratified or hash",
        "How rows are held out; hash keeps each row on its side while the table grows.",
    )
    subset_size: int | None = _param(
        None,
        _optional(_integer(1, 2**63 - 1)),
        "a whole number of rows from 1, or none for all",
        "Train on that many rows only.",
    )
    plots: bool = _param(True, _boolean, "true or false", "Draw and log the pictures.")
    name: str = _param(
        "iris", model_name, "the name of a registered model", "The registered model."
    )
    stage: str = _param(
        "staging", stage_name, "a legal alias, such as staging", "The stage that it gets."
    )

    @classmethod
    def from_text(cls: type[Params], texts: Mapping[str, str]) -> Params:
        """Read parameters from text, such as a command line gives; defaults for what is absent.

        Raises
        ------
        InvalidParameter
            If one is out of its bounds; names parameter, value and bounds.
        """
        values = {
            spec.name: _parsed(spec, texts[spec.name]) for spec in fields(cls) if spec.name in texts
        }
        return cls(**values)

    def __post_init__(self) -> None:
        """Check the bounds of each value and that they fit together.

        Raises
        ------
        InvalidParameter
            If one is out of its bounds, or two contradict each other.
        """
        for spec in fields(self):
            # The dataclass is frozen for everybody else.
            object.__setattr__(self, spec.name, _parsed(spec, as_text(getattr(self, spec.name))))
        if self.data != "iris" and self.target is None:
            raise InvalidParameter(
                "target", "none", f"a table needs the name of its label column (data={self.data})"
            )
        if self.data == "iris" and self.target is not None:
            raise InvalidParameter(
                "target", self.target, "belongs to a table; iris brings its own label"
            )
        if self.data == "iris" and self.drop:
            raise InvalidParameter("drop", as_text(self.drop), "belongs to a table, not to iris")
        if self.target in self.drop:
            raise InvalidParameter(
                "drop", as_text(self.drop), "the label column cannot be left out"
            )
        if self.data != "iris" and Path(self.data).suffix.lower() not in {
            ".csv",
            ".parquet",
            ".pq",
        }:
            raise InvalidParameter("data", self.data, "must be " + _bounds_of("data"))
        if self.split == "hash" and isinstance(self.test_size, int):
            raise InvalidParameter(
                "test_size",
                self.test_size,
                "split=hash needs a fraction: a number of rows would move rows as the table grows",
            )

    def as_text(self) -> dict[str, str]:
        """Return the parameters as MLflow logs them, what was not given left out."""
        texts = {spec.name: as_text(getattr(self, spec.name)) for spec in fields(self)}
        return {name: text for name, text in texts.items() if text not in {"", "none", "{}"}}


@dataclass(frozen=True)
class SweepParams(TrainParams):
    """What a sweep depends on: a training's parameters, and how others are tried for it."""

    model: str = _param(
        "all", _one_of((*MODELS, ALL)), f"one of {', '.join(MODELS)}, or all", "What is tried."
    )
    model_params: Mapping[str, Any] = _param(
        {},
        _json_object,
        "a JSON object, such as '{\"C\": 0.5}'",
        "Arguments of the estimator that are the same in each trial.",
    )
    n_trials: int = _param(
        20, _integer(1, 100_000), "a whole number from 1 to 100000", "How many are tried."
    )
    n_jobs: int = _param(
        1, _integer(1, 10_000), "a whole number from 1 to 10000", "Trials at the same time."
    )
    engine: str = _param(
        "local", _one_of(ENGINES), "local or spark", "Where: in processes here, or on Spark."
    )

    def trained_with(self, model: str, model_params: Mapping[str, Any]) -> TrainParams:
        """Return the parameters of a training of this sweep's table with one model."""
        own = {spec.name: getattr(self, spec.name) for spec in fields(TrainParams)}
        return TrainParams(**own | {"model": model, "model_params": model_params})


def as_text(value: Any) -> str:
    """Return the text that `from_text` reads as this value, and that MLproject has as default."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue() or "none"
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)


def _parsed(spec: Field[Any], text: str) -> Any:
    plain = text if spec.metadata["parse"] is _column else text.strip()
    try:
        return spec.metadata["parse"](plain)
    except InvalidReference as error:
        raise InvalidParameter(spec.name, text, str(error)) from None
    except (ValueError, OverflowError):
        bounds = f"must be {spec.metadata['bounds']}"
        raise InvalidParameter(spec.name, text, bounds) from None


def _bounds_of(name: str) -> str:
    return next(spec.metadata["bounds"] for spec in fields(TrainParams) if spec.name == name)

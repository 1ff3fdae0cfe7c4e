"""The current window: the production data of one version, which the analysis tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.training.baseline import CategoryProfile, NumericProfile, TrainingBaseline, as_category
from registry_tools.data.arrow_coercion import coerce_batch
from registry_tools.data.schema import FINITE, Column, quoted_names
from registry_tools.errors import first_line
from registry_tools.task import CLASSIFICATION


@contextlib.contextmanager
def arrow_errors(where: str) -> Iterator[None]:
    """Raise errors of pyarrow as DataError; `where` begins the message."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{where}: {first_line(error)}") from error


@dataclass(frozen=True)
class CurrentWindow:
    """The features of rows that one version predicted, with the predictions and the request ids."""

    table: pa.Table  # one column for each feature
    predictions: pa.ChunkedArray | None  # class names or numbers; None if the rows have no predictions
    keys: pa.Table | None  # columns `request` and `row`, which join labels; None without request ids
    probabilities: pa.ChunkedArray | None = None  # lists in the order of the classes; None if not read

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.table.num_rows)

    def column(self, name: str, profile: NumericProfile | CategoryProfile) -> pd.Series:
        """Return a feature as float64 numbers or as category names, shape (rows,).

        Raises
        ------
        DataError
            If a value of a numeric feature is not a number, or those of another one are lists or objects.
        """
        if isinstance(profile, NumericProfile):
            return pd.Series(self._numbers(name))
        # The shared coercion refuses 0 and 1 as booleans, and categories that are not text.
        column = self.table.column(name)
        try:
            if profile.is_boolean and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                column = column.cast(pa.bool_())  # a CSV or a log may store booleans as 0 and 1
            return category_names(column)
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} is of type {column.type}, but the version was trained on text"
            ) from error

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        column = self.table.column(name)
        try:
            with contextlib.suppress(pa.ArrowInvalid):  # the coercion below reads more forms of text
                return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
            batch = pa.RecordBatch.from_arrays([column.combine_chunks()], [name])
            coerced = coerce_batch(batch, [Column(name, "double", required=False)], text=True)
        except pa.ArrowException as error:
            raise DataError(f"column {name!r} is of type {column.type}, not numbers") from error
        for row, fault in coerced.faults.items():
            if fault.reason != FINITE:  # an infinite value is a number
                raise DataError(f"column {name!r}, row {row}: {fault.describe()}")
        return coerced.arrays[name]

    def predicted_numbers(self) -> npt.NDArray[np.float64]:
        """Return the predictions of a regression, shape (rows,); NaN marks a row without prediction."""
        return self.predictions.to_pandas().to_numpy(float) if self.predictions is not None else np.empty(0)


def category_names(column: pa.ChunkedArray) -> pd.Series:
    """Return the category name of each value, shape (rows,); None for a missing value."""
    encoded = pc.dictionary_encode(column.combine_chunks(), "encode")
    values = encoded.dictionary.to_pylist()
    names = [None if value is None or value != value else as_category(value) for value in values]
    return pd.Series(np.array(names, dtype=object)[encoded.indices])


def check_class_names(window: CurrentWindow, version: int, baseline: TrainingBaseline) -> None:
    """Refuse predictions if no class name is in the baseline: the names differ, not the data.

    Raises
    ------
    DataError
        If window and baseline have no class name in common.
    """
    if window.predictions is not None and baseline.task == CLASSIFICATION:
        current = set(window.predictions.unique().drop_null().to_pylist())
        message = f"the rows hold the predictions {{}} of version {version}, but it predicts {{}}"
        check_classes(current, set(baseline.predictions), message)


def check_classes(given: set[str], known: set[str], message: str) -> None:
    """Refuse class names if none of them is known; the message has a place for both sets of names.

    Raises
    ------
    DataError
        If the two sets have no class in common.
    """
    if given and not given & known:
        sides = [quoted_names(sorted(names)[:5]) for names in (given, known)]
        raise DataError(f"{message.format(*sides)}: they have no class in common")

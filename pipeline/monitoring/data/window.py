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
from pipeline.training.baseline import TrainingBaseline, as_category
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

    def numeric_values(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column as numbers, shape (rows,); NaN marks a missing value.

        Raises
        ------
        DataError
            If a value is not a number.
        """
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

    def category_counts(self, name: str, is_boolean: bool) -> tuple[dict[str, int], int]:
        """Return the number of rows by category, and the number of rows with a missing value.

        Raises
        ------
        DataError
            If the values are lists or objects.
        """
        # The shared coercion refuses 0 and 1 as booleans, and categories that are not text.
        column = self.table.column(name)
        try:
            if is_boolean and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                column = column.cast(pa.bool_())  # a CSV or a log may store booleans as 0 and 1
            return count_categories(column)
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} is of type {column.type}, but the version was trained on text"
            ) from error

    def split(self, parts: int) -> list[CurrentWindow]:
        """Return equal parts, at most one a row, in the order of the rows; only their features."""
        places = np.array_split(np.arange(self.rows), parts)
        return [CurrentWindow(self.table.slice(rows[0], len(rows)), None, None) for rows in places]

    def sample(self, most: int) -> pd.DataFrame:
        """Return at most `most` rows of the features, drawn at random with a fixed seed."""
        table = self.table
        if self.rows > most:
            chosen = np.random.default_rng(0).choice(self.rows, most, replace=False)
            table = table.take(pa.array(np.sort(chosen)))
        return table.to_pandas()


def count_categories(column: pa.ChunkedArray) -> tuple[dict[str, int], int]:
    """Return the number of values by category, and the number of missing values."""
    counts: dict[str, int] = {}
    missing = 0
    for pair in pc.value_counts(column.combine_chunks()).to_pylist():
        value = pair["values"]
        if value is None or value != value:
            missing += pair["counts"]
        else:
            counts[as_category(value)] = counts.get(as_category(value), 0) + pair["counts"]
    return counts, missing


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

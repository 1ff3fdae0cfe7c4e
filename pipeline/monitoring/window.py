"""The current window: production data of one version."""

from __future__ import annotations

import contextlib
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


@dataclass(frozen=True)
class CurrentWindow:
    """The current window: production data of one version."""

    table: pa.Table  # features under their names
    predictions: pa.ChunkedArray | None  # names of classes; None: it was not asked yet
    keys: pa.Table | None  # `request` and `row`, to join labels

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    def numeric_values(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers, shape (rows,); NaN is none.

        Raises
        ------
        DataError
            If it holds something else.
        """
        column = self.table.column(name)
        try:
            with contextlib.suppress(pa.ArrowInvalid):  # text in a form that Arrow does not read
                return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
            batch = pa.RecordBatch.from_arrays([column.combine_chunks()], [name])
            coerced = coerce_batch(batch, [Column(name, "double", required=False)], text=True)
        except pa.ArrowException as error:
            raise DataError(f"column {name!r} holds {column.type} instead of numbers") from error
        for row, fault in coerced.faults.items():
            if fault.reason != FINITE:  # an infinite value is a number
                raise DataError(f"column {name!r}, row {row}: {fault.describe()}")
        return coerced.arrays[name]

    def category_counts(self, name: str, is_boolean: bool) -> tuple[dict[str, int], int]:
        """Return how many rows there are of each category of a column, and how many have none.

        Raises
        ------
        DataError
            If it holds what is no category.
        """
        # Not the shared coercion: it refuses 0 and 1 as booleans, and other values than text as categories.
        column = self.table.column(name)
        try:
            if is_boolean and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                column = column.cast(pa.bool_())  # 0 and 1
            return count_categories(column)
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} holds {column.type}, and the version was trained on text there"
            ) from error

    def slice_rows(self, start: int, rows: int) -> CurrentWindow:
        """Return some of the rows, in their order."""
        return CurrentWindow(self.table.slice(start, rows), None, None)

    def sample(self, most: int) -> pd.DataFrame:
        """Return up to so many rows of the features, chosen by chance, the same each time."""
        table = self.table
        if self.rows > most:
            chosen = np.random.default_rng(0).choice(self.rows, most, replace=False)
            table = table.take(pa.array(np.sort(chosen)))
        return table.to_pandas()


def count_categories(column: pa.ChunkedArray) -> tuple[dict[str, int], int]:
    """Return how many values there are of each category, and how many are missing."""
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
    """Refuse class names that the baseline does not have: all would be drift."""
    if window.predictions is None or not window.rows:
        return
    current = set(window.predictions.unique().drop_null().to_pylist())
    if current and not current & set(baseline.predictions):
        raise DataError(
            f"the rows say that version {version} predicted {quoted_names(sorted(current)[:5])}, "
            f"but it predicts {quoted_names(sorted(baseline.predictions)[:5])}: "
            "none of them is the same"
        )

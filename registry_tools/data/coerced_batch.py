"""A batch converted to the types of a signature, with the faults of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry_tools.data.schema import CoercionFault, Column


@dataclass
class CoercedBatch:
    """The columns of a signature as arrays of shape (rows,), and the faults that were found."""

    rows: int
    arrays: dict[str, npt.NDArray[Any]]  # numbers, booleans or objects; a missing value is NaN or None
    faults: dict[int, CoercionFault] = field(default_factory=dict)  # the first fault of each row
    # The exact values of integer columns with missing values. `arrays` holds them as floats, which
    # round beyond 2**53.
    exact: dict[str, pa.Array] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[int, str]:
        """The reason why a row cannot be scored, by row of the batch."""
        return {row: f"column {f.column!r}: {f.describe()}" for row, f in self.faults.items()}

    def keep_rows(self, kept: npt.NDArray[np.bool_]) -> CoercedBatch:
        """Return the rows of a mask, shape (rows,), without their faults."""
        return CoercedBatch(
            int(kept.sum()),
            {name: values[kept] for name, values in self.arrays.items()},
            exact={name: values.filter(pa.array(kept)) for name, values in self.exact.items()},
        )

    def slice(self, begin: int, end: int) -> CoercedBatch:
        """Return rows that follow each other, without their faults and exact values."""
        return CoercedBatch(end - begin, {name: values[begin:end] for name, values in self.arrays.items()})

    def add_missing(self, column: Column, missing: npt.NDArray[np.bool_]) -> None:
        """Add a fault for each missing value of a required column."""
        if column.required:
            for row in np.flatnonzero(missing).tolist():
                self.faults.setdefault(row, CoercionFault(row, column.name, None))

    def add_faults(self, column: Column, values: pa.Array, unfit: npt.NDArray[Any], reason: str) -> None:
        """Add a fault for each value of a mask, shape (rows,)."""
        for row in np.flatnonzero(unfit).tolist():
            self.add_fault(column, values, row, reason)

    def add_fault(self, column: Column, values: pa.Array, row: int, reason: str) -> None:
        """Add a fault, unless the row has one already."""
        fault = CoercionFault(row, column.name, reason, values[row].as_py())
        self.faults.setdefault(row, fault)

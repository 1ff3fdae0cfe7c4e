"""What has been found out of a batch: its columns in the types of the signature, and bad rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry_tools.data.schema import Column

_LONGEST_SHOWN = 60


@dataclass
class Checked:
    """The columns of the signature in its types, and why some rows are not."""

    rows: int
    arrays: dict[str, npt.NDArray[Any]]  # numbers, booleans, or objects; holes are NaN or None
    bad: dict[int, str] = field(default_factory=dict)  # by row of the batch
    # Whole numbers beside holes, of which `arrays` has floats: those are rounded beyond 2**53.
    exact: dict[str, pa.Array] = field(default_factory=dict)

    def good(self) -> npt.NDArray[np.bool_]:
        """Return which rows can be scored, shape (rows,)."""
        good = np.ones(self.rows, bool)
        good[list(self.bad)] = False
        return good

    def without_bad(self) -> Checked:
        """Return the rows that can be scored."""
        if not self.bad:
            return self
        good = self.good()
        return Checked(
            int(good.sum()),
            {name: values[good] for name, values in self.arrays.items()},
            exact={name: values.filter(pa.array(good)) for name, values in self.exact.items()},
        )


def miss(column: Column, holes: npt.NDArray[np.bool_], checked: Checked) -> None:
    """Find rows bad where a column that is required has no value."""
    if column.required:
        for row in np.flatnonzero(holes).tolist():
            checked.bad.setdefault(
                row, f"column {column.name!r}: missing value, and the model needs one"
            )


def refuse(
    column: Column, values: pa.Array, rows: npt.NDArray[np.intp], wanted: str, checked: Checked
) -> None:
    """Find rows bad whose value is not what is wanted."""
    for row in rows.tolist():
        value = values[row].as_py()
        shown = repr(float(value) if isinstance(value, Decimal) else value)
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}…"
        checked.bad.setdefault(row, f"column {column.name!r}: {shown} is not {wanted}")

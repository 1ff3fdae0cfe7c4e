"""The parameters that say how to read the table of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.errors import InvalidParameter
from pipeline.params.fields import (
    CheckedParams,
    as_text,
    column_name,
    column_names,
    column_types,
    nonempty,
    param,
)


@dataclass(frozen=True)
class TableParams(CheckedParams):
    """The table and the roles of its columns."""

    data: str = param("iris", nonempty, "'iris', or the path or URL of a .csv or .parquet file", "The table.")
    target: str | None = param(
        None, column_name, "the name of a column", "The label column; required for your own table."
    )
    drop: tuple[str, ...] = param(
        (),
        column_names,
        "different column names separated by commas, or none",
        "Columns to leave out, for example a column of row ids.",
    )
    group: str | None = param(
        None,
        column_name,
        "the name of a column, or none",
        "A column of groups, such as patients: all rows of a group are on one side of each split.",
    )
    time: str | None = param(
        None,
        column_name,
        "the name of a column of dates or numbers, or none",
        "Hold out the latest rows, and evaluate each fold on rows that follow its training rows.",
    )
    weight: str | None = param(
        None,
        column_name,
        "the name of a column, or none",
        "A column of row weights, which the model does not learn from.",
    )
    dtypes: Mapping[str, str] = param(
        {},
        column_types,
        "COLUMN:TYPE separated by commas, with the types text and date, or none",
        "The types of columns, where the file does not say it: zip:text keeps a code such as 01000.",
    )

    def __post_init__(self) -> None:
        """Check the bounds of each parameter, and that the parameters are consistent.

        Raises
        ------
        InvalidParameter
            If a parameter is out of bounds, or two parameters contradict each other.
        """
        super().__post_init__()
        self._check_columns()
        if self.group is not None and self.time is not None:
            raise InvalidParameter(
                "group", self.group, f"time={self.time} already chooses the held-out rows; set one of the two"
            )
        if self.data != "iris" and self.target is None:
            raise InvalidParameter(
                "target", "none", f"a table needs the name of its label column (data={self.data})"
            )
        if self.data == "iris" and self.target is not None:
            raise InvalidParameter("target", self.target, "needs data=FILE; iris has its own label")
        for name, value in (("drop", self.drop), ("dtypes", self.dtypes)):
            if self.data == "iris" and value:
                raise InvalidParameter(name, as_text(value), "needs data=FILE; iris has no such column")
        if self.target in self.drop:
            raise InvalidParameter("drop", as_text(self.drop), "the label column cannot be left out")
        from registry_tools.files.input_files import without_secrets  # with pyarrow, which takes time

        address = without_secrets(self.data)
        if "://" in self.data and address != self.data.partition("?")[0]:
            raise InvalidParameter("data", address, "must hold no key: the run records it; see production.md")
        bounds = next(spec.metadata["bounds"] for spec in fields(self) if spec.name == "data")
        if self.data != "iris" and Path(address).suffix.lower() not in {".csv", ".parquet", ".pq"}:
            raise InvalidParameter("data", address, "must be " + bounds)

    def _check_columns(self) -> None:
        """Check that each column has one role; a column of times may also be left out of the features."""
        roles = {name: getattr(self, name) for name in ("group", "time", "weight")}
        used: dict[str | None, str] = {self.target: "target", **dict.fromkeys(self.drop, "drop")}
        for role, column in roles.items():
            if column is None:
                continue
            if self.data == "iris":
                raise InvalidParameter(role, column, "needs data=FILE; iris has no such column")
            if column in used and (role, used[column]) != ("time", "drop"):
                raise InvalidParameter(role, column, f"the column is already {used[column]}={column}")
            used[column] = role

"""The parameters that say how to read the table of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InvalidParameter
from pipeline.params.fields import COLUMN_NAMES, COLUMN_TYPES, CheckedParams, as_text, column, nonempty, param

_DATA = "'iris', or the path or URL of a .csv or .parquet file"


@dataclass(frozen=True)
class TableParams(CheckedParams):
    """The table and the roles of its columns."""

    data: str = param("iris", nonempty(_DATA), "The table.")
    target: str | None = param(
        None, column("the name of a column"), "The label column; required for your own table."
    )
    drop: tuple[str, ...] = param((), COLUMN_NAMES, "Columns to leave out, for example a column of row ids.")
    group: str | None = param(
        None,
        column(),
        "A column of groups, such as patients: all rows of a group are on one side of each split.",
    )
    time: str | None = param(
        None,
        column("the name of a column of dates or numbers, or none"),
        "Hold out the latest rows, and evaluate each fold on rows that follow its training rows.",
    )
    weight: str | None = param(
        None, column(), "A column of row weights, which the model does not learn from."
    )
    dtypes: Mapping[str, str] = param(
        {},
        COLUMN_TYPES,
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
        if self.data == "iris":
            for name in ("target", "drop", "group", "time", "weight", "dtypes"):
                if value := getattr(self, name):
                    lacks = "its own label" if name == "target" else "no such column"
                    raise InvalidParameter(name, as_text(value), f"needs data=FILE; iris has {lacks}")
            return
        self._check_columns()
        if self.group is not None and self.time is not None:
            raise InvalidParameter(
                "group", self.group, f"time={self.time} already chooses the held-out rows; set one of the two"
            )
        if self.target is None:
            raise InvalidParameter(
                "target", "none", f"a table needs the name of its label column (data={self.data})"
            )
        if self.target in self.drop:
            raise InvalidParameter("drop", as_text(self.drop), "the label column cannot be left out")
        from registry_tools.files.input_files import without_secrets  # with pyarrow, which takes time

        address = without_secrets(self.data)
        if "://" in self.data and address != self.data.partition("?")[0]:
            raise InvalidParameter("data", address, "must hold no key: the run records it; see production.md")
        if Path(address).suffix.lower() not in {".csv", ".parquet", ".pq"}:
            raise InvalidParameter("data", address, f"must be {_DATA}")

    def _check_columns(self) -> None:
        """Check that each column has one role; a column of times may also be left out of the features."""
        roles: dict[str | None, str] = {self.target: "target", **dict.fromkeys(self.drop, "drop")}
        for role in ("group", "time", "weight"):
            name = getattr(self, role)
            if name is None:
                continue
            if name in roles and (role, roles[name]) != ("time", "drop"):
                raise InvalidParameter(role, name, f"the column is already {roles[name]}={name}")
            roles[name] = role

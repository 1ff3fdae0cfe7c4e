"""The parameters that say how to read the table of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.errors import InvalidParameter
from pipeline.params.types import Bounds, Column, ColumnNames, ColumnTypes, Params, as_text

_DATA = "'iris', or the path or URL of a .csv or .parquet file"


class TableParams(Params):
    """The table and the roles of its columns."""

    data: Annotated[str, Field(min_length=1), Bounds(_DATA)] = "iris"
    """The table."""
    target: Annotated[Column, Bounds("the name of a column")] = None
    """The label column; required for your own table."""
    drop: ColumnNames = ()
    """Columns to leave out, for example a column of row ids."""
    group: Column = None
    """A column of groups, such as patients: all rows of a group are on one side of each split."""
    time: Annotated[Column, Bounds("the name of a column of dates or numbers, or none")] = None
    """Hold out the latest rows, and evaluate each fold on rows that follow its training rows."""
    weight: Column = None
    """A column of row weights, which the model does not learn from."""
    dtypes: ColumnTypes = Field({})
    """The types of columns, where the file does not say it: zip:text keeps a code such as 01000."""

    @model_validator(mode="after")
    def _check_table(self) -> TableParams:
        """Check that a table has a label column, and that each column has one role."""
        if self.data == "iris":
            for name in ("target", "drop", "group", "time", "weight", "dtypes"):
                if value := getattr(self, name):
                    lacks = "its own label" if name == "target" else "no such column"
                    raise InvalidParameter(name, as_text(value), f"needs data=FILE; iris has {lacks}")
            return self
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
        return self

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

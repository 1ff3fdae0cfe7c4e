"""The parameters that say how to read the table of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from pipeline.errors import InvalidParameter
from pipeline.params.types import Column, ColumnNames, ColumnTypes, OrNone, Params, Text, as_text
from registry_tools.errors import InputError

if TYPE_CHECKING:
    from registry_tools.files.table_source import TableSource

_DATA = "'iris', the path or URL of a .csv or .parquet file or of a folder of them, or 'sql:' and a query"


def check_address(name: str, address: str) -> None:
    """Check that the address of a table, which a run records, is a URL without a key, or a path.

    Raises
    ------
    InvalidParameter
        If it holds a user's name, a password, or options that may be a signature.
    """
    if "://" not in address or address.startswith("sql:"):
        return
    from registry_tools.files.addresses import without_secrets  # with pyarrow, which takes time

    try:
        plain = without_secrets(address)
    except InputError as error:
        raise InvalidParameter(name, "…", str(error)) from error
    # The options of an s3 or gs URL say where the store is.
    given = address.partition("?")[0] if address.startswith(("s3://", "gs://")) else address
    if plain != given:
        raise InvalidParameter(name, plain, "must hold no key: the run records it; see team-server.md")


class TableParams(Params):
    """The table and the roles of its columns."""

    data: Annotated[str, Field(min_length=1), _DATA] = "iris"
    """The table."""
    target: Annotated[Column, "the name of a column"] = None
    """The label column; required for your own table."""
    drop: ColumnNames = ()
    """Columns to leave out, for example a column of row ids."""
    group: Column = None
    """A column of groups, such as patients: all rows of a group are on one side of each split."""
    time: Annotated[Column, "the name of a column of dates or numbers, or none"] = None
    """Hold out the latest rows, and evaluate each fold on rows that follow its training rows."""
    weight: Column = None
    """A column of row weights, which the model does not learn from."""
    dtypes: ColumnTypes = Field({})
    """The types of columns, where the file does not say it: zip:text keeps a code such as 01000."""
    separator: Annotated[str, Text, "one ASCII character, such as ;, or \\t for a tab"] = ","
    """The character between the values of a CSV."""
    decimal: Literal[".", ","] = "."
    """The decimal mark of the numbers in a CSV."""
    encoding: Annotated[str, Text, "a text encoding of Python, such as cp1252"] = "utf-8"
    """The encoding of a CSV."""
    connection: Annotated[str | None, OrNone, "the name of an environment variable, or none"] = None
    """The environment variable with the SQLAlchemy URL of a query's database; the URL is not recorded."""

    def source(self) -> TableSource:
        """Return where the table is and how to read it."""
        from registry_tools.files.csv_rows import CsvFormat  # with pyarrow, which takes time
        from registry_tools.files.table_source import TableSource

        form = CsvFormat(self.separator, self.encoding, self.decimal)
        return TableSource(self.data, form, self.connection)

    @model_validator(mode="after")
    def _check_table(self) -> TableParams:
        """Check that a table has a label column, and that each column has one role."""
        if not (self.connection or "none").isidentifier():  # it may be the URL, with a password
            reason = "must be the name of an environment variable, which holds the URL of the database"
            raise InvalidParameter("connection", "…", reason)
        if self.data == "iris":
            for name, field in TableParams.model_fields.items():
                value = getattr(self, name)
                if value != field.get_default(call_default_factory=True):
                    reason = "needs data=FILE; iris has its own label and columns"
                    raise InvalidParameter(name, as_text(value), reason)
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
        self._check_source()
        return self

    def _check_source(self) -> None:
        """Check that the table can be read as the parameters say, and that its address holds no key."""
        from registry_tools.files.csv_rows import CsvFormat  # with pyarrow, which takes time
        from registry_tools.files.sql_query import check_query

        check_address("data", self.data)
        name = "separator"
        try:
            CsvFormat(self.separator, decimal=self.decimal)
            name = "encoding"
            CsvFormat(encoding=self.encoding)
            name, source = "data", self.source()
            if source.query is not None:
                check_query(source.query)
        except InputError as error:
            raise InvalidParameter(name, getattr(self, name), str(error)) from error
        for name in () if source.is_csv else ("separator", "decimal", "encoding"):
            if (value := getattr(self, name)) != TableParams.model_fields[name].default:
                raise InvalidParameter(name, value, f"is for CSV files only (data={source.label})")
        if (source.query is None) != (self.connection is None):
            reason = (
                "a query (data=sql:…) needs the name of the environment variable with its database, "
                "and other tables none"
            )
            raise InvalidParameter("connection", as_text(self.connection), reason)

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

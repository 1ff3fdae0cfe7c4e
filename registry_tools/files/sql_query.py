"""Read the result of a SQL query; only an environment variable holds the address of the database."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from registry_tools.errors import InputError, first_line
from registry_tools.files.input_files import refuse_doubled_columns

PREFIX = "sql:"
_EXAMPLE = "postgresql+psycopg2://reader:…@host/database"
# Text, quoted names and comments, in which any word may occur.
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
_WRITES = re.compile(
    r"\b(insert|update|delete|merge|into|create|alter|drop|truncate|grant|revoke|call)\b", re.IGNORECASE
)


def check_query(query: str) -> None:
    """Check that a query only reads. A database account that may only read is the real protection.

    Raises
    ------
    InputError
        If the query is not one SELECT, with or without WITH.
    """
    bare = _QUOTED.sub(" ", query).strip().removesuffix(";")
    if not re.match(r"(select|with)\b", bare, re.IGNORECASE) or ";" in bare:
        raise InputError("the query must be one SELECT, or WITH and a SELECT")
    if word := _WRITES.search(bare):
        raise InputError(
            f"the query must only read, and it holds {word[0]}: put it in quotes if it is a name"
        )


def read_query(query: str, connection: str) -> pd.DataFrame:
    """Return the result of a query, with the types that a Parquet file of the same table would give.

    Parameters
    ----------
    query
        One SELECT.
    connection
        The name of the environment variable with the SQLAlchemy URL of the database.

    Raises
    ------
    InputError
        If the variable is not set, or the query fails or returns no rows. No message has the URL or its
        password.
    """
    with _running(query, connection) as result:
        names, rows = list(result.keys()), result.fetchall()
    if not rows:
        raise InputError("the query returned no rows")
    columns = zip(*rows, strict=True)
    return pd.DataFrame(
        {name: _series(name, values) for name, values in zip(names, columns, strict=True)}, copy=False
    )


def query_columns(query: str, connection: str) -> list[str]:
    """Return the names of the columns of a query's result.

    Raises
    ------
    InputError
        If the variable is not set, or the query fails.
    """
    with _running(query, connection) as result:
        return list(result.keys())


@contextlib.contextmanager
def _running(query: str, connection: str) -> Iterator[sa.CursorResult[Any]]:
    """Run a query in a transaction that is rolled back; read only, where the database supports it."""
    check_query(query)
    address = os.environ.get(connection)
    if not address:
        raise InputError(
            f"the environment variable {connection}, which names the database, is not set: set it to a "
            f"SQLAlchemy URL such as {_EXAMPLE}"
        )
    try:
        url = sa.make_url(address)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except ImportError as error:
        raise InputError(f"{connection} needs the package {error.name}, which is not installed") from None
    except (ArgumentError, ValueError):  # their messages hold the URL
        raise InputError(f"{connection} holds no SQLAlchemy URL such as {_EXAMPLE}") from None
    is_sqlite = url.get_backend_name() == "sqlite"
    file = url.database if is_sqlite and not str(url.database).startswith((":", "file:")) else None
    if file and not Path(file).is_file():  # SQLite would create an empty database
        raise InputError(f"{connection} names an SQLite file that does not exist")
    # Without parameters, `%` and `:` stand for themselves.
    options = {"no_parameters": True, "stream_results": True, "postgresql_readonly": True}
    try:
        with engine.connect().execution_options(**options) as opened:
            if is_sqlite:
                opened.exec_driver_sql("PRAGMA query_only = ON")
            result = opened.exec_driver_sql(query)
            refuse_doubled_columns(list(result.keys()), "the query")
            yield result
    except SQLAlchemyError as error:
        # Neither the chain of exceptions nor the message shows the address.
        reason = first_line(_without(url, str(getattr(error, "orig", None) or error)), 300)
        raise InputError(f"the query failed: {reason}") from None


def _without(url: sa.URL, text: str) -> str:
    """Remove the password and the options of a URL from a message of the database."""
    values = [url.password, url.render_as_string(hide_password=False), *url.query.values()]
    for value in values:
        for secret in [value] if isinstance(value, str) else value or ():
            text = text.replace(secret, "***") if secret else text
    return text


def _series(name: str, values: Sequence[Any]) -> pd.Series:
    """Convert a column as Arrow does for Parquet: NULL is missing, and a decimal stays a decimal."""
    plain = [bytes(value) if isinstance(value, memoryview) else value for value in values]
    try:
        return pa.array(plain).to_pandas()
    except (pa.ArrowException, OverflowError):
        kinds = ", ".join(sorted({type(value).__name__ for value in plain if value is not None}))
        raise InputError(
            f"column {name!r} of the query has values of type {kinds}: convert it in the query, as in "
            f"CAST({name} AS text)"
        ) from None

"""Rows of now: from the server's prediction log, a file that was scored, or any table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.monitoring.reference import as_category
from registry_tools.signature import names_in_words
from registry_tools.tables import read_table

_log = logging.getLogger(__name__)

_PARQUET = {".parquet", ".pq"}
# What the log and a scored file call their own columns: version, prediction, its name.
_LOG = ("_version", "_prediction", "_prediction_name")
_SCORED = ("model_version", "prediction", "prediction_name")
REQUEST, ROW, _AT = ("_request_id", "request_id"), ("_row", "row"), "_at"
_NOT_NEEDED = "_probabilities"


@dataclass(frozen=True)
class Rows:
    """Rows of now, of whatever versions, as they were found."""

    table: pa.Table
    unreadable: tuple[str, ...] = ()  # files that were left out

    def by_version(self) -> dict[int | None, Rows]:
        """Return them by the version that answered; None where they do not say."""
        names = _own_columns(self.table)
        if names is None:
            return {None: self}
        versions = self.table.column(names[0])
        different = sorted(pc.unique(versions.drop_null()).to_pylist())
        if len(different) == 1 and not versions.null_count:
            return {int(different[0]): self}
        return {
            int(version): Rows(self.table.filter(pc.equal(versions, version)), self.unreadable)
            for version in different
        }

    def window(self, features: Sequence[str]) -> Window:
        """Return them with the features of a version, by their names.

        Raises
        ------
        DataError
            If a feature is not there.
        """
        names = _own_columns(self.table)
        predictions = _predictions(self.table, names) if names is not None else None
        return Window(_features(self.table, features), predictions, _keys(self.table))


@dataclass(frozen=True)
class Window:
    """Rows that one version answered, or is to be asked."""

    table: pa.Table  # features under their names
    predictions: pa.ChunkedArray | None  # names of classes; None: it was not asked yet
    keys: pa.Table | None  # `request` and `row`, to join labels

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers, shape (rows,); NaN is none.

        Raises
        ------
        DataError
            If it holds something else.
        """
        column = self.table.column(name)
        if pa.types.is_null(column.type):
            return np.full(self.rows, np.nan)
        try:
            return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} holds {column.type}, and the version was trained on numbers "
                f"there: {str(error).splitlines()[0]}"
            ) from error

    def counts(self, name: str) -> tuple[dict[str, int], int]:
        """Return how many rows there are of each category of a column, and how many have none."""
        return counted(self.table.column(name))

    def part(self, start: int, rows: int) -> Window:
        """Return some of the rows, in their order."""
        return Window(self.table.slice(start, rows), None, None)

    def sample(self, most: int) -> pd.DataFrame:
        """Return up to so many rows of the features, chosen by chance, the same each time."""
        table = self.table
        if self.rows > most:
            chosen = np.random.default_rng(0).choice(self.rows, most, replace=False)
            table = table.take(pa.array(np.sort(chosen)))
        return table.to_pandas()


def counted(column: pa.ChunkedArray) -> tuple[dict[str, int], int]:
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


def read(path: Path, name: str, text: Sequence[str], since: datetime | None) -> Rows:
    """Return rows of now.

    Parameters
    ----------
    path
        A folder of the prediction log, or a table.
    name
        Of the model: its folder in that of the log.
    text
        Columns of a CSV that hold text even where it looks like numbers.
    since
        Rows that the log has from before then are left out.

    Raises
    ------
    DataError, InputError
        If there is nothing to read.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder (looked in {Path.cwd()})")
    if path.is_dir():
        rows = _log_folder(path, name)
    elif path.suffix.lower() in _PARQUET:
        try:
            rows = Rows(_parquet(path))
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: not readable as Parquet: {reason}") from error
    else:
        table = read_table(path, text_columns=text, may_be_empty=True)
        rows = Rows(_plain(pa.Table.from_pandas(table, preserve_index=False)))
    return rows if since is None or not rows.table.num_columns else _since(rows, since)


def _log_folder(path: Path, name: str) -> Rows:
    """Read the whole files of a log; one that is being written has a hidden name."""
    own = path / name
    folder = own if own.is_dir() else path
    files = sorted(f for f in folder.glob("*.parquet") if not f.name.startswith("."))
    tables, unreadable = [], []
    for file in files:
        try:
            tables.append(_parquet(file))
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s is left out: not readable: %s", file.name, str(error).splitlines()[0])
            unreadable.append(file.name)
    if not tables and unreadable:
        raise DataError(f"{folder}: none of its files is readable, such as {unreadable[0]}")
    try:
        whole = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder}: its files do not fit each other: {reason}") from error
    return Rows(whole, tuple(unreadable))


def _parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name != _NOT_NEEDED]
        return _plain(file.read(columns=names, use_pandas_metadata=False))


def _plain(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries: files of different ones do not go together."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
    return table.replace_schema_metadata(None)


def _since(rows: Rows, since: datetime) -> Rows:
    if _AT not in rows.table.column_names:
        raise DataError(f"since: the rows do not say when they were answered (no column {_AT!r})")
    at = rows.table.column(_AT)
    now = datetime.now(timezone.utc)
    ahead = pc.sum(pc.greater(at, pa.scalar(now + timedelta(minutes=1), at.type))).as_py()
    if ahead:
        _log.warning("%d rows are from after now: a clock was wrong; they are taken in", ahead)
    return Rows(rows.table.filter(pc.greater_equal(at, pa.scalar(since, at.type))), rows.unreadable)


def _own_columns(table: pa.Table) -> tuple[str, str, str] | None:
    """Return the names of version, prediction and its name; None if nothing answered the rows."""
    for names in (_LOG, _SCORED):
        if {*names[:2]} <= {*table.column_names}:
            return names
    return None


def _features(table: pa.Table, features: Sequence[str]) -> pa.Table:
    """Return the features; the log gives a name that it needs itself a word before it."""
    there: dict[str, pa.ChunkedArray] = {}
    for feature in features:
        name = f"feature {feature}"
        name = name if name in table.column_names else feature
        if name in table.column_names:
            there[feature] = table.column(name)
    lacking = [feature for feature in features if feature not in there]
    if lacking:
        own = {*there, *_LOG, *_SCORED, *REQUEST, *ROW, _AT, "_model"}
        unknown = [name for name in table.column_names if name not in own]
        has = f"; {names_in_words(unknown)} stands there instead" if unknown else ""
        raise DataError(
            f"the rows have no column{'s' * (len(lacking) > 1)} {names_in_words(lacking)}, which "
            f"the version takes{has}: was it renamed?"
        )
    return pa.table(there)


def _predictions(table: pa.Table, names: tuple[str, str, str]) -> pa.ChunkedArray:
    """Return the names of what was predicted; the predictions themselves where there is none."""
    codes = table.column(names[1]).cast(pa.string())
    if names[2] not in table.column_names:
        return codes
    return pc.coalesce(table.column(names[2]).cast(pa.string()), codes)


def _keys(table: pa.Table) -> pa.Table | None:
    """Return which request each row was of, and its place in it."""
    request = next((name for name in REQUEST if name in table.column_names), None)
    if request is None:
        return None
    row = next((name for name in ROW if name in table.column_names), None)
    places = table.column(row) if row is not None else pa.array(np.zeros(len(table), np.int64))
    return pa.table(
        {"request": table.column(request).cast(pa.string()), "row": places.cast(pa.int64())}
    )

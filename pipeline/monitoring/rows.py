"""Rows of now as they stand in files: the server's prediction log, a scored file, or any table."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.monitoring.window import Window
from registry_tools.signature import names_in_words
from registry_tools.tables import read_table

_log = logging.getLogger(__name__)

_PARQUET = {".parquet", ".pq"}
# What the log and a scored file call their own columns: version, prediction, its name.
_LOG = ("_version", "_prediction", "_prediction_name")
_SCORED = ("model_version", "prediction", "prediction_name")
REQUEST, ROW, _AT, _MODEL = ("_request_id", "request_id"), ("_row", "row"), "_at", "_model"
_NOT_NEEDED = "_probabilities"


@dataclass(frozen=True)
class Rows:
    """Rows of now, of whatever versions, table by table as they were found."""

    tables: tuple[pa.Table, ...]
    notes: tuple[str, ...] = ()  # what was left out
    features: frozenset[str] = frozenset()  # names that are none of the log's or a scored file's

    def by_version(self) -> dict[int | None, Rows]:
        """Return them by the version that answered; None where they do not say."""
        found: dict[int | None, list[pa.Table]] = {}
        for table in self.tables:
            for version, part in _split(table, self.features).items():
                found.setdefault(version, []).append(part)
        return {
            version: Rows(tuple(tables), (), self.features) for version, tables in found.items()
        }

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(table.num_rows for table in self.tables)

    def window(self, features: Sequence[str]) -> Window:
        """Return them with the features of a version, by their names.

        Raises
        ------
        DataError
            If a feature is not there, or tables hold what does not go together.
        """
        if not self.count:
            return Window(
                pa.table({name: pa.array([], pa.null()) for name in features}), None, None
            )
        parts = [table for table in self.tables if table.num_rows]
        predictions = [_predictions(part, self.features) for part in parts]
        keys = [_keys(part, self.features) for part in parts]
        known = [part for part in predictions if part is not None]
        joined = [part for part in keys if part is not None]
        return Window(
            _together([_features(part, features) for part in parts]),
            pa.chunked_array([c for p in known for c in p.chunks], pa.string())
            if len(known) == len(parts)
            else None,
            pa.concat_tables(joined) if len(joined) == len(parts) else None,
        )


def read(
    path: Path, name: str, features: Collection[str], text: Sequence[str], since: datetime | None
) -> Rows:
    """Return rows of now.

    Parameters
    ----------
    path
        A folder of the prediction log, or a table.
    name
        Of the model: its folder in that of the log.
    features
        Of the version in the stage: columns of these names are what they say.
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
        rows = _log_folder(path, name, since)
    elif path.suffix.lower() in _PARQUET:
        try:
            rows = Rows((_parquet(path),))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: not readable as Parquet: {_reason(error)}") from error
    else:
        table = read_table(path, text_columns=text, may_be_empty=True)
        try:
            rows = Rows((_plain(pa.Table.from_pandas(table, preserve_index=False)),))
        except pa.ArrowException as error:
            raise DataError(f"{path}: {_reason(error)}") from error
    rows = _of_model(replace(rows, features=frozenset(features)), name, path)
    return rows if since is None else _since(rows, since)


def _log_folder(path: Path, name: str, since: datetime | None) -> Rows:
    """Read the whole files of a log; one that is being written has a hidden name."""
    own = path / name
    folder = own if own.is_dir() else path
    files = sorted(f for f in folder.glob("*.parquet") if not f.name.startswith("."))
    if not files and any(not f.name.startswith(".") for f in folder.iterdir()):
        raise DataError(f"{folder}: there is no .parquet file of a prediction log in it")
    tables, notes = [], []
    for file in files:
        try:
            if since is None or not _is_before(file, since):
                tables.append(_parquet(file))
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s is left out: not readable: %s", file.name, _reason(error))
            notes.append(f"{file.name} is not readable, and was left out")
    if len(notes) == len(files) > 0:
        raise DataError(f"{folder}: none of its files is readable, such as {files[0].name}")
    return Rows(tuple(tables), tuple(notes))


def _is_before(file: Path, since: datetime) -> bool:
    """Say whether all rows of a file were answered before a time, as its footer tells."""
    with pq.ParquetFile(file) as opened:
        if _AT not in opened.schema_arrow.names:
            return False
        place = opened.schema_arrow.get_field_index(_AT)
        groups = range(opened.metadata.num_row_groups)
        told = [opened.metadata.row_group(group).column(place).statistics for group in groups]
    return all(
        each is not None
        and each.has_min_max
        and isinstance(each.max, datetime)
        and (each.max if each.max.tzinfo else each.max.replace(tzinfo=timezone.utc)) < since
        for each in told
    )


def _parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name != _NOT_NEEDED]
        return _plain(file.read(columns=names, use_pandas_metadata=False))


def _plain(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries: tables of different ones do not go together.

    Raises
    ------
    DataError
        If a column stands twice.
    """
    doubled = [name for name in table.column_names if table.column_names.count(name) > 1]
    if doubled:
        raise DataError(f"column {doubled[0]!r} stands twice in the rows")
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
    return table.replace_schema_metadata(None)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _of_model(rows: Rows, name: str, path: Path) -> Rows:
    """Leave out what another model answered.

    Raises
    ------
    DataError
        If that is all.
    """
    kept, others = [], set()
    for table in rows.tables:
        if _MODEL in table.column_names and table.num_rows:
            models = table.column(_MODEL)
            others |= set(pc.unique(models).to_pylist()) - {name}
            table = table.filter(pc.equal(models, name))
        kept.append(table)
    found = replace(rows, tables=tuple(kept))
    if not others:
        return found
    if not found.count:
        raise DataError(f"{path}: these rows were answered by {names_in_words(sorted(others))}")
    note = f"rows that {names_in_words(sorted(others))} answered were left out"
    return replace(found, notes=(*rows.notes, note))


def _since(rows: Rows, since: datetime) -> Rows:
    now = datetime.now(timezone.utc)
    kept, ahead, timeless = [], 0, 0
    for table in rows.tables:
        if not table.num_rows:
            continue
        held = table.schema.field(_AT).type if _AT in table.column_names else None
        if held is None or not pa.types.is_timestamp(held):
            why = f"no column {_AT!r}" if held is None else f"column {_AT!r} holds {held}"
            raise DataError(f"since: the rows do not say when they were answered ({why})")
        at = table.column(_AT)
        if at.type.tz is None:
            at = pc.assume_timezone(at, "UTC")
        late = pc.greater(at, pa.scalar(now + timedelta(minutes=1), at.type))
        ahead += pc.sum(late).as_py() or 0
        timeless += at.null_count
        kept.append(table.filter(pc.greater_equal(at, pa.scalar(since, at.type))))
    if ahead:
        _log.warning("%d rows are from after now: a clock was wrong; they are taken in", ahead)
    notes = [f"{timeless} rows do not say when they were answered: left out"] if timeless else []
    return replace(rows, tables=tuple(kept), notes=(*rows.notes, *notes))


def _split(table: pa.Table, features: frozenset[str]) -> dict[int | None, pa.Table]:
    names = _own_columns(table, features)
    if names is None or not table.num_rows:
        return {None: table}
    versions = table.column(names[0])
    different = pc.unique(versions).to_pylist()
    if len(different) == 1:
        return {_number(different[0]): table}
    found = {}
    for version in different:
        same = pc.is_null(versions, nan_is_null=True)
        if _number(version) is not None:
            same = pc.equal(versions, version)
        found[_number(version)] = table.filter(same)
    return found


def _number(version: object) -> int | None:
    """Return a version's number; None if it is none.

    Raises
    ------
    DataError
        If it is something else.
    """
    if version is None or version != version:
        return None
    try:
        return int(str(version).removesuffix(".0"))
    except ValueError:
        raise DataError(f"the rows were answered by version {version!r}, which is none") from None


def _own_columns(table: pa.Table, features: frozenset[str]) -> tuple[str, str, str] | None:
    """Return the names of version, prediction and its name; None if nothing answered the rows."""
    for names in (_LOG, _SCORED):
        if {*names[:2]} <= {*table.column_names} - features:
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
        own = {*there, *_LOG, *_SCORED, *REQUEST, *ROW, _AT, _MODEL}
        unknown = [name for name in table.column_names if name not in own]
        has = f"; {names_in_words(unknown)} stands there instead" if unknown else ""
        raise DataError(
            f"the rows have no column{'s' * (len(lacking) > 1)} {names_in_words(lacking)}, which "
            f"the version takes{has}: was it renamed?"
        )
    return pa.table(there)


def _together(tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the files of the log do not fit each other: {_reason(error)}") from error


def _predictions(table: pa.Table, features: frozenset[str]) -> pa.ChunkedArray | None:
    """Return the names of what was predicted; the predictions themselves where there is none."""
    names = _own_columns(table, features)
    if names is None:
        return None
    codes = _as_names(table.column(names[1]))
    if names[2] not in table.column_names:
        return codes
    return pc.coalesce(_as_names(table.column(names[2])), codes)


def _as_names(classes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return classes under the names that a training gives them.

    Raises
    ------
    DataError
        If they are none.
    """
    if pa.types.is_nested(classes.type):
        raise DataError(f"the predictions hold {classes.type}, which is no class")
    if pa.types.is_boolean(classes.type):
        return pc.if_else(classes, "True", "False")
    if pa.types.is_floating(classes.type):
        whole = pc.all(pc.equal(pc.floor(classes), classes)).as_py()
        classes = classes.cast(pa.int64()) if whole else classes
    return classes.cast(pa.string())


def _keys(table: pa.Table, features: frozenset[str]) -> pa.Table | None:
    """Return which request each row was of, and its place in it."""
    there = {*table.column_names} - features
    request = next((name for name in REQUEST if name in there), None)
    if request is None:
        return None
    row = next((name for name in ROW if name in there), None)
    places = table.column(row) if row is not None else pa.array(np.zeros(len(table), np.int64))
    try:
        return pa.table(
            {"request": table.column(request).cast(pa.string()), "row": places.cast(pa.int64())}
        )
    except pa.ArrowException as error:
        raise DataError(f"columns {request!r} and {row!r}: {_reason(error)}") from error

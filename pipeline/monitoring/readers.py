"""Read production data: the server's prediction log, a scored file, or any table."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.monitoring.production_data import AT, MODEL, ProductionData
from registry_tools.data.schema import quoted_names
from registry_tools.data.tables import read_table
from registry_tools.errors import first_line

_log = logging.getLogger(__name__)

_PARQUET = {".parquet", ".pq"}
_SKIPPED_COLUMN = "_probabilities"


def read_production_data(
    path: Path, name: str, features: Collection[str], text: Sequence[str], since: datetime | None
) -> ProductionData:
    """Return production data.

    Parameters
    ----------
    path
        A folder of the prediction log, or a table.
    name
        Of the model: its folder in that of the log.
    features
        Of the version in the stage: columns with these names are features.
    text
        Columns of a CSV that hold text even where it looks like numbers.
    since
        Earlier rows of the log are left out.

    Raises
    ------
    DataError, InputError
        If there is nothing to read.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder (looked in {Path.cwd()})")
    if path.is_dir():
        rows = _read_log_folder(path, name, since)
    elif path.suffix.lower() in _PARQUET:
        try:
            rows = ProductionData((_read_parquet(path),))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: not readable as Parquet: {first_line(error)}") from error
    else:
        table = read_table(path, text_columns=text, may_be_empty=True)
        try:
            rows = ProductionData((_decode_dictionaries(pa.Table.from_pandas(table, preserve_index=False)),))
        except pa.ArrowException as error:
            raise DataError(f"{path}: {first_line(error)}") from error
    rows = _keep_model(replace(rows, features=frozenset(features)), name, path)
    return rows if since is None else _keep_since(rows, since)


def _read_log_folder(path: Path, name: str, since: datetime | None) -> ProductionData:
    """Read the whole files of a log; one that is being written has a hidden name."""
    own = path / name
    folder = own if own.is_dir() else path
    files = sorted(f for f in folder.glob("*.parquet") if not f.name.startswith("."))
    if not files and any(not f.name.startswith(".") for f in folder.iterdir()):
        others = sorted({file.parent.name for file in folder.glob("*/*.parquet")})
        if not others:
            raise DataError(f"{folder}: there is no .parquet file of a prediction log in it")
        return ProductionData((), (f"the log has no rows of {name} yet, but of {quoted_names(others)}",))
    tables, notes = [], []
    for file in files:
        try:
            if since is None or not _is_before(file, since):
                tables.append(_read_parquet(file))
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s is left out: not readable: %s", file.name, first_line(error))
            notes.append(f"{file.name} is not readable, and was left out")
    if len(notes) == len(files) > 0:
        raise DataError(f"{folder}: none of its files is readable, such as {files[0].name}")
    return ProductionData(tuple(tables), tuple(notes))


def _is_before(file: Path, since: datetime) -> bool:
    """Say whether all rows of a file were predicted before a time, by its footer."""
    with pq.ParquetFile(file) as opened:
        if AT not in opened.schema_arrow.names:
            return False
        place = opened.schema_arrow.get_field_index(AT)
        groups = range(opened.metadata.num_row_groups)
        statistics = [opened.metadata.row_group(group).column(place).statistics for group in groups]
    return all(
        each is not None
        and each.has_min_max
        and isinstance(each.max, datetime)
        and (each.max if each.max.tzinfo else each.max.replace(tzinfo=timezone.utc)) < since
        for each in statistics
    )


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name != _SKIPPED_COLUMN]
        return _decode_dictionaries(file.read(columns=names, use_pandas_metadata=False))


def _decode_dictionaries(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries: tables of different ones do not go together.

    Raises
    ------
    DataError
        If a column occurs twice.
    """
    doubled = [name for name in table.column_names if table.column_names.count(name) > 1]
    if doubled:
        raise DataError(f"column {doubled[0]!r} occurs twice in the rows")
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
    return table.replace_schema_metadata(None)


def _keep_model(rows: ProductionData, name: str, path: Path) -> ProductionData:
    """Leave out the predictions of other models.

    Raises
    ------
    DataError
        If none is left.
    """
    kept, others = [], set()
    for table in rows.tables:
        if MODEL in table.column_names and table.num_rows:
            models = table.column(MODEL)
            foreign = set(pc.unique(models).to_pylist()) - {name}
            if foreign:  # else it would be copied for nothing
                table = table.filter(pc.equal(models, name))
            others |= foreign
        kept.append(table)
    found = replace(rows, tables=tuple(kept))
    if not others:
        return found
    if not found.count:
        raise DataError(f"{path}: these rows were predicted by {quoted_names(sorted(others))}")
    note = f"rows that {quoted_names(sorted(others))} predicted were left out"
    return replace(found, notes=(*rows.notes, note))


def _keep_since(rows: ProductionData, since: datetime) -> ProductionData:
    now = datetime.now(timezone.utc)
    kept, ahead, timeless = [], 0, 0
    for table in rows.tables:
        if not table.num_rows:
            continue
        held = table.schema.field(AT).type if AT in table.column_names else None
        if held is None or not pa.types.is_timestamp(held):
            why = f"no column {AT!r}" if held is None else f"column {AT!r} holds {held}"
            raise DataError(f"since: the rows do not have the time of prediction ({why})")
        at = table.column(AT)
        if at.type.tz is None:
            at = pc.assume_timezone(at, "UTC")
        late = pc.greater(at, pa.scalar(now + timedelta(minutes=1), at.type))
        ahead += pc.sum(late).as_py() or 0
        timeless += at.null_count
        kept.append(table.filter(pc.greater_equal(at, pa.scalar(since, at.type))))
    if ahead:
        _log.warning("%d rows are in the future: a clock is wrong; they are used", ahead)
    notes = [f"{timeless} rows have no time of prediction: left out"] if timeless else []
    return replace(rows, tables=tuple(kept), notes=(*rows.notes, *notes))

"""Read production data: a folder of the server's prediction log, a scored file, or any table."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import dataset

from pipeline.errors import DataError
from pipeline.monitoring.data.production_data import AT, MODEL, PREDICTED, PROBABILITIES, ProductionData
from pipeline.monitoring.data.window import arrow_errors
from registry_tools.data.schema import quoted_names
from registry_tools.errors import first_line
from registry_tools.files.tables import read_table

_log = logging.getLogger(__name__)


def read_production_data(
    path: Path,
    name: str,
    features: Collection[str],
    text: Sequence[str],
    since: datetime | None,
    probabilities: bool = False,
) -> ProductionData:
    """Read the rows of one model.

    Parameters
    ----------
    path
        A folder of the prediction log, or a .csv or .parquet file.
    name
        The registered model; a log of several models has one folder for each.
    features
        The features of the version in the stage; a column with such a name is a feature.
    text
        Columns of a CSV file that are read as text even if their values look like numbers.
    since
        Rows predicted before this time are left out; None reads all rows.
    probabilities
        Whether to read the logged probabilities too.

    Raises
    ------
    DataError, InputError
        If the path does not exist or cannot be read, or no row is of this model.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder (relative paths start at {Path.cwd()})")
    if path.is_dir():
        rows = _read_log_folder(path, name, since, probabilities)
    elif path.suffix.lower() in {".parquet", ".pq"}:
        with arrow_errors(f"{path} cannot be read as Parquet"):
            rows = ProductionData((_read_parquet(path, since, probabilities),))
    else:
        table = read_table(path, text_columns=text, may_be_empty=True, literal_columns=PREDICTED)
        with arrow_errors(str(path)):
            rows = ProductionData((pa.Table.from_pandas(table, preserve_index=False),))
    rows = _keep_model(replace(rows, features=frozenset(features)), name, path)
    return rows if since is None else _keep_since(rows, since)


def _read_log_folder(path: Path, name: str, since: datetime | None, probabilities: bool) -> ProductionData:
    """Read the finished files of a prediction log; the server hides a file while it writes it."""
    own = path / name
    folder = own if own.is_dir() else path
    files = sorted(f for f in folder.glob("*.parquet") if not f.name.startswith("."))
    if not files and any(not f.name.startswith(".") for f in folder.iterdir()):
        others = sorted({file.parent.name for file in folder.glob("*/*.parquet")})
        if not others:
            raise DataError(f"{folder} has no .parquet file of a prediction log")
        return ProductionData((), (f"the log has no rows of {name} yet, only of {quoted_names(others)}",))
    tables, notes = [], []
    for file in files:
        try:
            tables.append(_read_parquet(file, since, probabilities))
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s cannot be read and is left out: %s", file.name, first_line(error))
            notes.append(f"{file.name} cannot be read and was left out")
    if len(notes) == len(files) > 0:
        raise DataError(f"{folder}: no file can be read; the first is {files[0].name}")
    return ProductionData(tuple(tables), tuple(notes))


def _read_parquet(path: Path, since: datetime | None, probabilities: bool) -> pa.Table:
    """Read a file, but not the row groups whose rows were all predicted before `since`."""
    file = dataset(path, format="parquet")
    names = [name for name in file.schema.names if probabilities or name != PROBABILITIES]
    is_recent = None
    if since is not None and AT in names and pa.types.is_timestamp(file.schema.field(AT).type):
        at = pc.field(AT)
        is_recent = at.is_null() | (at >= pa.scalar(since, file.schema.field(AT).type))
    table = file.to_table(names, filter=is_recent)
    # pyarrow cannot join columns with different dictionaries.
    kinds = [
        each.type.value_type if pa.types.is_dictionary(each.type) else each.type for each in table.schema
    ]
    return table.cast(pa.schema(zip(names, kinds, strict=True)))


def _keep_model(rows: ProductionData, name: str, path: Path) -> ProductionData:
    """Leave out rows that other models predicted.

    Raises
    ------
    DataError
        If no row is left.
    """
    kept, others = [], set()
    for table in rows.tables:
        if MODEL in table.column_names:
            foreign = set(pc.unique(table.column(MODEL)).to_pylist()) - {name}
            if foreign:  # filtering copies the table
                table = table.filter(pc.equal(table.column(MODEL), name))
            others |= foreign
        kept.append(table)
    found = replace(rows, tables=tuple(kept))
    if not others:
        return found
    models = quoted_names(sorted(others))
    if not found.count:
        raise DataError(f"{path}: all rows were predicted by {models}, not by {name}")
    return replace(found, notes=(*rows.notes, f"rows that {models} predicted were left out"))


def _keep_since(rows: ProductionData, since: datetime) -> ProductionData:
    now = datetime.now(timezone.utc)
    kept, ahead, timeless = [], 0, 0
    for table in rows.tables:
        if not table.num_rows:
            continue
        held = table.schema.field(AT).type if AT in table.column_names else None
        if held is None or not pa.types.is_timestamp(held):
            why = f"no column {AT!r}" if held is None else f"column {AT!r} holds {held}"
            raise DataError(f"since: the rows have no time of prediction ({why})")
        at = table.column(AT)  # a column without a time zone holds times in UTC
        ahead += pc.sum(pc.greater(at, pa.scalar(now + timedelta(minutes=1), at.type))).as_py() or 0
        timeless += at.null_count
        kept.append(table.filter(pc.greater_equal(at, pa.scalar(since, at.type))))
    if ahead:
        _log.warning("%d rows have a time in the future: a clock is wrong; the rows are used", ahead)
    notes = [f"{timeless} rows have no time of prediction and were left out"] if timeless else []
    return replace(rows, tables=tuple(kept), notes=(*rows.notes, *notes))

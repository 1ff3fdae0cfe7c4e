"""Parquet to Parquet on this machine: workers read and answer row groups by themselves.

Nothing of the rows passes through the command: a worker reads the columns that the model takes and
writes those that are added, and the command puts both into the output, encoded as they are.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.batch.engines.process_pool import Group, Pool, Told
from registry_tools.batch.readers.file_identity import Known
from registry_tools.batch.readers.input_files import SUFFIXES, Files
from registry_tools.batch.row_stream import Progress, Tally, Task, refusal
from registry_tools.batch.writers import table_writers
from registry_tools.batch.writers.parquet_copy import Carrier, Footer, alike, footer
from registry_tools.data.temp_files import make_temp_folder
from registry_tools.errors import InputError

# Of larger row groups there are too few for several workers, and their answers wait in memory.
_MOST_ROWS = 2 << 20


class Unfit(Exception):
    """The rows have to go through the command after all: some are to be rejected."""


def footers_of(task: Task) -> list[Footer] | None:
    """Return the footers of the files; None unless all can be carried over."""
    files, to = task.files, SUFFIXES[task.request.output.suffix.lower()]
    local = isinstance(files.filesystem, fs.LocalFileSystem)
    if not isinstance(task.engine, Pool) or files.form != "parquet" or to != "parquet" or not local:
        return None
    if any("." in column.name for column in task.columns):  # Parquet's way to name what is nested
        return None
    found = alike(_read(files))
    if found is None or not any(one.groups for one in found):
        return None
    largest = max(one.rows_of(place) for one in found for place in range(len(one.groups)))
    return found if largest <= _MOST_ROWS else None


def _read(files: Files) -> list[Footer | None]:
    found = []
    for one in files.known:
        with one.read():
            found.append(footer(one.path))
    return found


def run(task: Task, footers: list[Footer], progress: Progress) -> Tally:
    """Score all rows.

    Raises
    ------
    InputError
        If a row cannot be scored, and there is no file for such rows; or a file is changed.
    Unfit
        If one cannot, and there is; nothing is written then.
    """
    assert isinstance(task.engine, Pool)
    tally = Tally()
    with contextlib.ExitStack() as stack:
        scratch = make_temp_folder("scoring")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        target = stack.enter_context(table_writers.whole(task.request.output))
        rejects = task.request.rejects
        refused = stack.enter_context(table_writers.whole(rejects)) if rejects else None
        carrier = stack.enter_context(contextlib.closing(Carrier(target, footers[0])))
        kind: pa.DataType | None = None
        by_path = {k.path: (k, f) for k, f in zip(task.files.known, footers, strict=True)}
        answered = 0

        def tell(rows: int) -> None:
            nonlocal answered
            answered += rows
            progress(answered, answered)

        for group, told in task.engine.answer_groups(_groups(task, footers, scratch), tell):
            known, given = by_path[group.path]
            check_told(known, given, group, told)
            if told.bad is not None:
                if rejects is not None:
                    raise Unfit
                raise refusal(f"{group.shown}: row {group.first + told.bad[0]}: {told.bad[1]}")
            part = Path(group.part)
            kind = kind or pq.read_schema(part).field("prediction").type
            with known.unchanged():  # what was answered is what is copied
                carrier.add(given, group.place, part)
            part.unlink()
            tally.rows += told.rows
            tally.counts.update(told.counts)
        assert kind is not None
        carrier.finish(task.schema(kind))
        if refused is not None and rejects is not None:
            form = SUFFIXES[rejects.suffix.lower()]
            table_writers.sink(refused, form, task.reject_schema(), task.files.metadata).close()
    return tally


def check_told(known: Known, given: Footer, group: Group, told: Told) -> None:
    """Refuse what a worker tells of another file, or of one that is not as it says.

    Raises
    ------
    InputError
        If the file was changed, or its row group is not as long as its footer says.
    """
    wanted = given.rows_of(group.place)
    if told.bad is None and told.rows == wanted:
        return
    known.check()
    if told.bad is None:
        raise InputError(
            f"{group.shown}: cannot be read: row group {group.place} holds {told.rows} rows, and "
            f"the footer says {wanted}"
        )


def _groups(task: Task, footers: list[Footer], scratch: Path) -> Iterator[Group]:
    number = 0
    for one, known in zip(footers, task.files.known, strict=True):
        first = 0
        for place in range(len(one.groups)):
            part = str(scratch / f"{number}.parquet")
            yield Group(one.path, known.shown, known.mark, place, first, part)
            first += one.rows_of(place)
            number += 1

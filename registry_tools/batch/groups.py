"""Parquet to Parquet on this machine: workers read and answer row groups by themselves.

Nothing of the rows passes through the command: a worker reads the columns that the model takes and
writes those that are added, and the command puts both into the output, encoded as they are.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.batch import output
from registry_tools.batch.carried import Carrier, Footer, alike, footer
from registry_tools.batch.files import SUFFIXES
from registry_tools.batch.pool import Group, Pool
from registry_tools.batch.task import Progress, Tally, Task, refusal

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
    found = alike([footer(path) for path in files.paths])
    if found is None or not any(one.groups for one in found):
        return None
    largest = max(one.rows_of(place) for one in found for place in range(len(one.groups)))
    return found if largest <= _MOST_ROWS else None


def run(task: Task, footers: list[Footer], progress: Progress) -> Tally:
    """Score all rows.

    Raises
    ------
    InputError
        If a row cannot be scored, and there is no file for such rows.
    Unfit
        If one cannot, and there is; nothing is written then.
    """
    assert isinstance(task.engine, Pool)
    tally = Tally()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scoring-")))
        target = stack.enter_context(output.whole(task.request.output))
        rejects = task.request.rejects
        refused = stack.enter_context(output.whole(rejects)) if rejects else None
        carrier = stack.enter_context(contextlib.closing(Carrier(target, footers[0])))
        kind: pa.DataType | None = None
        by_path = {one.path: one for one in footers}
        answered = 0

        def tell(rows: int) -> None:
            nonlocal answered
            answered += rows
            progress(answered, answered)

        for group, told in task.engine.answer_groups(_groups(task, footers, scratch), tell):
            if told.bad is not None:
                if rejects is not None:
                    raise Unfit
                raise refusal(f"{group.shown}: row {group.first + told.bad[0]}: {told.bad[1]}")
            part = Path(group.part)
            kind = kind or pq.read_schema(part).field("prediction").type
            carrier.add(by_path[group.path], group.place, part)
            part.unlink()
            tally.rows += told.rows
            tally.counts.update(told.counts)
        assert kind is not None
        carrier.finish(task.schema(kind))
        if refused is not None and rejects is not None:
            form = SUFFIXES[rejects.suffix.lower()]
            output.sink(refused, form, task.reject_schema(), task.files.metadata).close()
    return tally


def _groups(task: Task, footers: list[Footer], scratch: Path) -> Iterator[Group]:
    number = 0
    for one, shown in zip(footers, task.files.shown, strict=True):
        first = 0
        for place in range(len(one.groups)):
            yield Group(one.path, shown, place, first, str(scratch / f"{number}.parquet"))
            first += one.rows_of(place)
            number += 1

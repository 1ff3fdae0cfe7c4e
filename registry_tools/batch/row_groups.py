"""Parquet to Parquet on this machine: workers read and predict row groups by themselves.

No row passes through the command: a worker reads the columns that the model takes and writes those
that are added, and the command copies both into the output, encoded as they are.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.batch.engines.process_pool import ProcessPool, RowGroup, RowGroupResult
from registry_tools.batch.readers.input_files import SUFFIXES, InputFiles
from registry_tools.batch.scoring_plan import Progress, RowCounts, ScoringPlan, bad_row_error
from registry_tools.batch.writers import parquet_copy
from registry_tools.batch.writers.parquet_copy import ParquetFooter
from registry_tools.batch.writers.table_writers import open_writer
from registry_tools.data.output_file import output_file
from registry_tools.data.temp_files import make_temp_folder
from registry_tools.errors import InputError

# Of larger row groups there are too few for several workers, and their predictions wait in memory.
_MOST_ROWS = 2 << 20


class NeedsRowStream(Exception):
    """The rows have to go through the command after all: some are to be rejected."""


def copyable_footers(plan: ScoringPlan) -> list[ParquetFooter] | None:
    """Return the footers of the files; None unless all their row groups can be copied."""
    files, output = plan.files, SUFFIXES[plan.request.output.suffix.lower()]
    local = isinstance(files.filesystem, fs.LocalFileSystem)
    if not isinstance(plan.engine, ProcessPool) or {files.file_format, output} != {"parquet"} or not local:
        return None
    if any("." in column.name for column in plan.columns):  # Parquet's way to name what is nested
        return None
    footers = parquet_copy.same_schema_footers(_read_footers(files))
    if footers is None or not any(one.groups for one in footers):
        return None
    largest = max(one.rows_of(index) for one in footers for index in range(len(one.groups)))
    return footers if largest <= _MOST_ROWS else None


def _read_footers(files: InputFiles) -> list[ParquetFooter | None]:
    footers = []
    for one in files.identities:
        with one.reading():
            footers.append(parquet_copy.read_footer(one.path))
    return footers


def score_row_groups(plan: ScoringPlan, footers: list[ParquetFooter], progress: Progress) -> RowCounts:
    """Score all rows.

    Raises
    ------
    InputError
        If a row cannot be scored, and there is no file for such rows; or a file is changed.
    NeedsRowStream
        If one cannot, and there is; nothing is written then.
    """
    assert isinstance(plan.engine, ProcessPool)
    total = RowCounts()
    with contextlib.ExitStack() as stack:
        scratch = make_temp_folder("scoring")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        output = stack.enter_context(output_file(plan.request.output))
        rejects = plan.request.rejects
        reject_output = stack.enter_context(output_file(rejects)) if rejects else None
        copier = stack.enter_context(contextlib.closing(parquet_copy.RowGroupCopier(output, footers[0])))
        kind: pa.DataType | None = None
        by_path = {footer.path: footer for footer in footers}
        predicted = 0

        def report(rows: int) -> None:
            nonlocal predicted
            predicted += rows
            progress(predicted, predicted)

        groups = _row_groups(plan, footers, scratch)
        for group, result in plan.engine.predict_row_groups(groups, report):
            footer = by_path[group.file.path]
            check_row_group_result(footer, group, result)
            if result.bad_row is not None:
                if rejects is not None:
                    raise NeedsRowStream
                row, reason = result.bad_row
                raise bad_row_error(f"{group.file.name}: row {group.first_row + row}: {reason}")
            part = Path(group.output)
            kind = kind or pq.read_schema(part).field("prediction").type
            with group.file.unchanged():  # the rows that were predicted are those that are copied
                copier.copy_row_group(footer, group.index, part)
            part.unlink()
            total.rows += result.rows
            total.counts.update(result.counts)
        assert kind is not None
        copier.write_footer(plan.output_schema(kind))
        if reject_output is not None and rejects is not None:
            open_writer(reject_output, rejects, plan.reject_schema, plan.files.metadata).close()
    return total


def check_row_group_result(footer: ParquetFooter, group: RowGroup, result: RowGroupResult) -> None:
    """Refuse the result of another file, or of one that contradicts its footer.

    Raises
    ------
    InputError
        If the file was changed, or its row group is not as long as its footer says.
    """
    expected = footer.rows_of(group.index)
    if result.bad_row is None and result.rows == expected:
        return
    group.file.check_unchanged()
    if result.bad_row is None:
        raise InputError(
            f"{group.file.name}: cannot be read: row group {group.index} holds {result.rows} "
            f"rows, and the footer says {expected}"
        )


def _row_groups(plan: ScoringPlan, footers: list[ParquetFooter], scratch: Path) -> Iterator[RowGroup]:
    number = 0
    for footer, identity in zip(footers, plan.files.identities, strict=True):
        first_row = 0
        for index in range(len(footer.groups)):
            output = str(scratch / f"{number}.parquet")
            yield RowGroup(identity, index, first_row, output)
            first_row += footer.rows_of(index)
            number += 1

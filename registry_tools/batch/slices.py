"""The work of a scoring job cut into slices, which processes score side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from registry_tools.errors import InputError
from registry_tools.files.csv_rows import CsvFormat, TextRows, read_rows
from registry_tools.files.input_files import InputFile, InputFiles
from registry_tools.files.part_files import ARROW, read_arrow, write_part

FEWEST_ROWS = 1 << 16  # of a slice, unless its file has fewer
_JOINED_ROWS = 1 << 18  # so many rows of small row groups are one slice
# So few rows at once that their columns stay in the cache of the processor, and progress is seen.
_STEP_ROWS = 1 << 15
_READ_BYTES = 1 << 20  # of a Parquet column that are read at once


@dataclass(frozen=True)
class Slice:
    """Rows of one file that follow each other."""

    file: InputFile
    first_row: int  # in the file, from 0
    rows: int
    row_groups: tuple[int, ...] = ()  # that hold them, in Parquet
    skip: int = 0  # rows of the row groups that stand before them
    text: Path | None = None  # the rows themselves, in Arrow's stream format, if the file is a CSV
    bad: dict[int, str] = field(default_factory=dict)  # malformed rows, by place, and why
    bytes_read: int = 0  # of all CSV files, up to its end

    def read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read the rows, in small steps.

        Raises
        ------
        InputError
            If the file is changed or broken.
        """
        if self.text is not None:
            for rows in read_arrow(self.text):
                yield from (rows.slice(begin, _STEP_ROWS) for begin in range(0, rows.num_rows, _STEP_ROWS))
            return
        skip, left = self.skip, self.rows
        with self.file.reading() as source:
            parquet = pq.ParquetFile(source, buffer_size=_READ_BYTES, pre_buffer=False)
            for rows in parquet.iter_batches(_STEP_ROWS, list(self.row_groups), columns, use_threads=False):
                part = rows.slice(min(skip, rows.num_rows), left)
                skip, left = max(skip - rows.num_rows, 0), left - part.num_rows
                if part.num_rows:
                    yield part.select(columns)
                if not left:
                    break
            if left:
                raise InputError(f"{self.file.name}: cannot be read: {left} rows fewer than its footer says")


def cut_row_groups(files: InputFiles, workers: int) -> Iterator[Slice]:
    """Yield row groups: small ones together, and large ones divided.

    A process that scores the end of a row group has to decode its beginning. So it is divided only
    as far as all processes need to end at the same time: no slice is larger than an equal share of
    the rows that are left.
    """
    left = files.total
    for file, sizes in zip(files.files, files.row_groups, strict=True):
        first, groups, rows = 0, [], 0  # type: int, list[int], int
        for number, size in enumerate(sizes):
            groups.append(number)
            rows += size
            if rows and (number + 1 == len(sizes) or rows + sizes[number + 1] > _JOINED_ROWS):
                pieces = -(-rows // max(FEWEST_ROWS, -(-left // workers)))
                for begin, end in pairwise(rows * piece // pieces for piece in range(pieces + 1)):
                    yield Slice(file, first + begin, end - begin, tuple(groups), begin)
                first, left, groups, rows = first + rows, left - rows, [], 0


def cut_text(files: InputFiles, scratch: Path) -> Iterator[Slice]:
    """Read CSV files, and yield their rows block by block, each in a file of the scratch folder."""
    assert files.csv is not None
    before = read = 0
    for number, file in enumerate(files.files):
        for block in _read_blocks(file, files.schema.names, files.csv):
            path, read = scratch / f"text-{number}-{block.first_row}", before + block.done
            write_part(path, ARROW, iter([block.rows]), {})
            rows = block.rows.num_rows
            yield Slice(file, block.first_row, rows, text=path, bad=block.bad, bytes_read=read)
        before = read


def _read_blocks(file: InputFile, names: list[str], form: CsvFormat) -> Iterator[TextRows]:
    with file.reading() as source:
        yield from read_rows(source, file.path, names, form)

"""Rows of a CSV as text, in batches: each line is a row, and a malformed one is a row with a reason."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from registry_tools.errors import InputError

COMPRESSION = {".csv": None, ".csv.gz": "gzip", ".csv.zst": "zstd"}
BLOCK_BYTES = 4 << 20  # of text that are read at once
_LONGEST_SHOWN = 60
_MOST_MALFORMED = 100_000  # lines at the beginning of a file before any that fits its header
# Arrow reads a byte 0xNN that is not UTF-8 as the character U+10FFNN, which has no other use.
_SHIFT = 0x10FF00 - 0xDC00  # from the surrogate that Python reads it as
_ESCAPED = "[\U0010ff80-\U0010ffff]"


@dataclass(frozen=True)
class CsvFormat:
    """How bytes become lines and values.

    Raises
    ------
    InputError
        If the separator is not one ASCII character, equals the decimal mark, or Python has no such
        encoding for text.
    """

    separator: str = ","  # `\t` is a tab
    encoding: str = "utf-8"
    decimal: str = "."  # of a table that is read whole; rows to score have a point

    def __post_init__(self) -> None:
        object.__setattr__(self, "separator", self.separator.replace("\\t", "\t"))
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n':
            raise InputError(
                f"the separator {self.separator!r} is not one ASCII character: give one such as ';'"
            )
        if self.separator == self.decimal:
            raise InputError(
                f"the separator {self.separator!r} is the decimal mark as well: give one such as ';'"
            )
        try:
            "".encode(self.encoding)
            object.__setattr__(self, "encoding", codecs.lookup(self.encoding).name)
        except (LookupError, ValueError):
            raise InputError(
                f"Python has no encoding {self.encoding!r} for text: give one such as 'latin-1'"
            ) from None

    def refuse_for_parquet(self, where: str) -> None:
        """Refuse any option that is not the default, since Parquet files need none.

        Raises
        ------
        InputError
            If there is such an option.
        """
        for option in fields(self):
            if (value := getattr(self, option.name)) != option.default:
                shown = value.replace("\t", r"\t")
                raise InputError(
                    f"{where}: {option.name}={shown} is for CSV files only, and this is Parquet: leave it out"
                )


@dataclass(frozen=True)
class TextRows:
    """Rows that follow each other in one file."""

    first_row: int  # the row of the file that they begin with, from 0
    rows: pa.RecordBatch  # all text
    bad: dict[int, str]  # malformed ones, by place in `rows`, and why
    done: int  # bytes of the file that were read by now


def read_header(source: pa.NativeFile, path: str, where: str, form: CsvFormat) -> pa.Schema:
    """Return the columns that the first line names; all are text.

    Raises
    ------
    InputError
        If the file is empty, or a block ends before its header does.
    """
    content = text_of(source, path, form).read(BLOCK_BYTES)
    line = content.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    if not line.strip():
        raise InputError(f"{where}: it is empty, without even a header")
    whole = len(content) < BLOCK_BYTES or b"\n" in line
    try:
        names = split_line(line.decode("utf-8", "surrogateescape"), form, strict=True)
    except csv.Error:
        whole = False
    if not whole:
        raise InputError(
            f"{where}: its header does not end within {BLOCK_BYTES:,} bytes: is it a CSV, and "
            "is each quote closed?"
        )
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: its header is not UTF-8: name its encoding") from None
    return pa.schema([(name, pa.string()) for name in names])


def read_rows(source: pa.NativeFile, path: str, names: list[str], form: CsvFormat) -> Iterator[TextRows]:
    """Read all lines in order, with their columns in the order of `names`.

    Raises
    ------
    ValueError
        If the first 100,000 lines have more or fewer values than the header.
    """
    malformed: dict[int, tuple[str, str]] = {}  # by row: lines that were read, and are in no batch yet

    def collect(line: pa_csv.InvalidRow) -> str:
        reason = f"{line.actual_columns} values, and the header names {line.expected_columns}"
        malformed[line.number - 2] = (line.text, reason)  # its numbers count the header
        # Arrow reads on until a line fits, and all lines before it are kept in memory.
        return "error" if line.number - 1 == len(malformed) == _MOST_MALFORMED else "skip"

    first, escaper = 0, _ByteEscaper()
    text = pa.TransformInputStream(text_of(source, path, form), escaper)
    for block in _read_blocks(text, names, form, collect):
        end, among = first + block.num_rows, {}
        # Rows are collected in ascending order.
        while malformed and (row := next(iter(malformed))) <= end:
            among[row - first] = malformed.pop(row)
            end += 1
        if end > first:
            # Malformed lines have the file's own order of columns, which may be another.
            rows, bad = _decode(block, among, form, escaper.escaped)
            yield TextRows(first, rows.select(names), bad, source.tell())
        first = end


def _read_blocks(
    stream: Any, names: list[str], form: CsvFormat, collect: Callable[[pa_csv.InvalidRow], str]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of well-formed lines, and a last batch without rows for the lines after them."""
    try:
        reader = pa_csv.open_csv(
            stream,
            # In one thread, or nothing could be said of where a row stands.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(
                delimiter=form.separator, newlines_in_values=True, invalid_row_handler=collect
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                check_utf8=False,  # the stream is
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):  # the header is all that there is, without the end of its line
            return
        if str(error).startswith("CSV parse error: Row"):  # the handler returned "error"
            raise ValueError(
                f"the first {_MOST_MALFORMED:,} lines do not fit the header of {len(names)} columns: "
                "check the separator"
            ) from None
        raise
    with reader:
        yield from reader
        yield pa.RecordBatch.from_pylist([], reader.schema)


def _decode(
    block: pa.RecordBatch, malformed: dict[int, tuple[str, str]], form: CsvFormat, escaped: bool
) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Return all rows as text, malformed lines at their places; and which rows are malformed."""
    rows, bad = block, undecoded_rows(block) if escaped else {}
    if bad:
        arrays = [pa.array(map(_unescape, values.to_pylist()), pa.string()) for values in block.columns]
        rows = pa.RecordBatch.from_arrays(arrays, schema=block.schema)
    if malformed:
        total, places = block.num_rows + len(malformed), list(malformed)
        well_formed = np.setdiff1d(np.arange(total), places)
        bad = {int(well_formed[row]): reason for row, reason in bad.items()}
        bad |= {place: reason for place, (_, reason) in malformed.items()}
        width = block.num_columns
        lines = [
            [*split_line(_unescape(text), form), *[""] * width][:width] for text, _ in malformed.values()
        ]
        arrays = [pa.array(values, pa.string()) for values in zip(*lines, strict=True)]
        both = [rows, pa.RecordBatch.from_arrays(arrays, schema=rows.schema)]
        order = np.argsort(np.concatenate([well_formed, places]))
        rows = pa.Table.from_batches(both).take(pa.array(order)).combine_chunks().to_batches()[0]
    return rows, bad


def undecoded_rows(rows: pa.RecordBatch, undecoded: str = _ESCAPED) -> dict[int, str]:
    """Return which rows have bytes that are not in the encoding of the file, and why they are refused.

    Parameters
    ----------
    rows
        The rows; all columns are text.
    undecoded
        A regular expression for the characters that stand for such bytes; by default those of `read_rows`.
    """
    bad: dict[int, str] = {}
    for name, values in zip(rows.schema.names, rows.columns, strict=True):
        for row in pc.indices_nonzero(pc.match_substring_regex(values, undecoded)).to_pylist():
            text = _unescape(values[row].as_py())[:_LONGEST_SHOWN]
            bad.setdefault(row, f"column {name!r}: '{text}' is not UTF-8 (name its encoding)")
    return bad


class _ByteEscaper:
    """Make bytes UTF-8: Arrow calls no handler for a malformed line that is not."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.escaped = False  # whether there was a byte that is not UTF-8

    def __call__(self, content: pa.Buffer) -> bytes:
        text = self._decoder.decode(content, final=not len(content))
        try:
            return text.encode()
        except UnicodeEncodeError:
            self.escaped = True
            return re.sub("[\udc80-\udcff]", lambda found: chr(ord(found[0]) + _SHIFT), text).encode()


def _unescape(text: str) -> str:
    return re.sub(_ESCAPED, lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", text)


def split_line(text: str, form: CsvFormat, strict: bool = False) -> list[str]:
    """Return the values of the first line."""
    csv.field_size_limit(sys.maxsize)  # a value may be of any length
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=form.separator, strict=strict)
    return next(lines, [])


def text_of(source: pa.NativeFile, path: str, form: CsvFormat) -> Any:
    """Return the text of a file, decompressed and in UTF-8, as a stream."""
    codec = next((codec for ending, codec in COMPRESSION.items() if path.lower().endswith(ending)), None)
    stream = pa.CompressedInputStream(source, codec) if codec else source
    return stream if form.encoding == "utf-8" else pa.transcoding_input_stream(stream, form.encoding, "utf-8")

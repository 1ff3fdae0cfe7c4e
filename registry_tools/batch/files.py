"""The files that are scored: found, compared with each other, and read in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.signature import names_in_words

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
BATCH_ROWS = 1 << 16
BLOCK_BYTES = 4 << 20  # bytes of a CSV that are read at once
READ_BYTES = 1 << 20  # bytes of a Parquet column that are read at once
_UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Broken:
    """A line of a CSV that is no row."""

    row: int  # of its file, from 0
    text: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Rows of one file."""

    where: str  # the file, for errors
    first: int  # its first row in the file, from 0
    rows: pa.RecordBatch
    done: int  # rows of Parquet, bytes of CSV that were read by now, over all files
    broken: tuple[Broken, ...] = ()  # lines that stood before or among them
    skips: tuple[int, ...] = ()  # the rows of the file that those are

    def row_of(self, place: int) -> int:
        """Return which row of the file stands at a place of the batch."""
        row = self.first + place
        for skipped in self.skips:
            row += skipped <= row
        return row


@dataclass(frozen=True)
class Files:
    """One or more files of one format with the same columns."""

    form: str  # csv or parquet
    filesystem: fs.FileSystem
    paths: tuple[str, ...]
    shown: tuple[str, ...]  # as errors name them
    schema: pa.Schema
    total: int  # rows of Parquet, bytes of CSV
    metadata: pq.FileMetaData | None = field(default=None, repr=False)  # of the first Parquet

    @property
    def is_text(self) -> bool:
        """Whether all values are text that is still to be read."""
        return self.form == "csv"

    def batches(self, size: int = BATCH_ROWS, keep_broken: bool = False) -> Iterator[Batch]:
        """Read all rows in order.

        Raises
        ------
        InputError
            If a file turns out to be broken, or a line of a CSV is no row and `keep_broken` is
            not set.
        """
        done = 0
        for path, shown in zip(self.paths, self.shown, strict=True):
            read = _read_csv if self.is_text else _read_parquet
            last = 0
            with readable(shown):
                for batch in read(self, path, shown, size, keep_broken):
                    yield Batch(
                        batch.where, batch.first, batch.rows, done + batch.done, batch.broken,
                        batch.skips,
                    )  # fmt: skip
                    last = batch.done
            done += last


@contextlib.contextmanager
def readable(shown: str) -> Iterator[None]:
    """Turn what Arrow and the system say of a file into an error that names it."""
    try:
        yield
    except InputError:
        raise
    except _UNREADABLE as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InputError(f"{shown}: cannot be read: {text}") from error


def without_secrets(url: str) -> str:
    """Return a path or URL without a user's name, password or query."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_files(address: str) -> Files:
    """Find what is to be scored: a file, a folder of them, or a URL of either.

    Raises
    ------
    InputError
        If there is nothing, a file is not readable, or files differ in format or columns.
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    shown = without_secrets(address)
    with readable(shown):
        filesystem, path = _filesystem(address)
        found = _found(filesystem, path, shown)
    forms = {SUFFIXES[PurePosixPath(name).suffix.lower()] for name in found}
    if len(forms) > 1:
        raise InputError(f"{shown}: CSV and Parquet stand side by side: score them one by one")
    names = (
        [shown] if found == [path] else [f"{shown.rstrip('/')}/{_below(f, path)}" for f in found]
    )
    form = forms.pop()
    return _compared(form, filesystem, tuple(found), tuple(names))


def _below(file: str, folder: str) -> str:
    return str(PurePosixPath(file).relative_to(PurePosixPath(folder)))


def _filesystem(address: str) -> tuple[fs.FileSystem, str]:
    if "://" not in address:
        return fs.LocalFileSystem(), Path(address).as_posix()
    try:
        return fs.FileSystem.from_uri(address)
    except pa.ArrowInvalid:  # not one of Arrow's own
        pass
    try:
        import fsspec.core
    except ImportError:
        raise UnsupportedOperation(
            f"{without_secrets(address)}: reading from there needs fsspec: install "
            "registry-pipeline[url]"
        ) from None
    try:
        found, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UnsupportedOperation(f"{without_secrets(address)}: {error}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def _found(filesystem: fs.FileSystem, path: str, shown: str) -> list[str]:
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{shown}: there is no such file or folder")
    if info.type != fs.FileType.Directory:
        if PurePosixPath(urlsplit(path).path).suffix.lower() not in SUFFIXES:
            raise InputError(f"{shown}: unknown format; use one of {', '.join(SUFFIXES)}")
        return [path]
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    found = sorted(
        file.path
        for file in inside
        if file.type == fs.FileType.File
        and PurePosixPath(file.path).suffix.lower() in SUFFIXES
        # Names that Spark, Hive and this program give to what is no data.
        and not any(
            part.startswith((".", "_")) for part in PurePosixPath(_below(file.path, path)).parts
        )
    )
    if not found:
        raise InputError(f"{shown}: no file in it ends with {', '.join(SUFFIXES)}")
    return found


def _compared(
    form: str, filesystem: fs.FileSystem, paths: tuple[str, ...], shown: tuple[str, ...]
) -> Files:
    """Read what each file says of its columns, before a single row is read."""
    schemas, total, first = [], 0, None
    for path, name in zip(paths, shown, strict=True):
        with readable(name):
            if form == "parquet":
                with filesystem.open_input_file(path) as file:
                    parquet = pq.ParquetFile(file)
                    schemas.append(parquet.schema_arrow)
                    total += parquet.metadata.num_rows
                    first = first or parquet.metadata
            else:
                schemas.append(_header(filesystem, path, name))
                total += filesystem.get_file_info(path).size or 0
    for name, schema in zip(shown, schemas, strict=True):
        _refuse_difference(schemas[0], shown[0], schema, name)
    return Files(form, filesystem, paths, shown, schemas[0], total, first)


def _header(filesystem: fs.FileSystem, path: str, shown: str) -> pa.Schema:
    with filesystem.open_input_stream(path, compression=None) as stream:
        try:
            with pa_csv.open_csv(
                stream,
                parse_options=pa_csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
                read_options=pa_csv.ReadOptions(block_size=1 << 16),
            ) as reader:
                names = reader.schema.names
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                raise InputError(f"{shown}: it is empty, without even a header") from None
            raise
    return pa.schema([(name, pa.string()) for name in names])


def _refuse_difference(wanted: pa.Schema, first: str, given: pa.Schema, shown: str) -> None:
    missing = [name for name in wanted.names if name not in given.names]
    added = [name for name in given.names if name not in wanted.names]
    if missing or added:
        said = f"lacks {names_in_words(missing)}" if missing else f"has {names_in_words(added)}"
        raise InputError(f"{shown}: other columns than in {first}: it {said}")
    for name in wanted.names if len(set(wanted.names)) == len(wanted.names) else ():
        if given.field(name).type != wanted.field(name).type:
            raise InputError(
                f"{shown}: column {name!r} holds {given.field(name).type}, and in {first} "
                f"{wanted.field(name).type}"
            )


def _read_parquet(
    files: Files, path: str, shown: str, size: int, keep_broken: bool
) -> Iterator[Batch]:
    with files.filesystem.open_input_file(path) as source:
        parquet = pq.ParquetFile(source, buffer_size=READ_BYTES, pre_buffer=False)
        done = 0
        names = files.schema.names
        for rows in parquet.iter_batches(size):
            if rows.schema.names != names:
                rows = rows.select(names)
            yield Batch(shown, done, rows, done + rows.num_rows)
            done += rows.num_rows


def _read_csv(files: Files, path: str, shown: str, size: int, keep_broken: bool) -> Iterator[Batch]:
    broken: list[Broken] = []

    def keep(row: pa_csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} values, and the header names {row.expected_columns}"
        broken.append(Broken(row.number - 2, row.text, reason))  # its numbers count the header
        return "skip"

    names = files.schema.names
    with files.filesystem.open_input_file(path) as source:
        reader = pa_csv.open_csv(
            source,
            # In one thread, or nothing could be said of where a row stands.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=keep if keep_broken else None
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        first, told, done = 0, 0, 0
        with reader:
            for block in reader:
                if block.schema.names != names:
                    block = block.select(names)
                done = source.tell()
                for start in range(0, block.num_rows, size):
                    rows = block.slice(start, size)
                    yield Batch(shown, first, rows, done, tuple(broken[told:]), _rows(broken))
                    first, told = first + rows.num_rows, len(broken)
        if told < len(broken):
            nothing = pa.RecordBatch.from_pylist([], schema=files.schema)
            yield Batch(shown, first, nothing, done, tuple(broken[told:]), _rows(broken))


def _rows(broken: Sequence[Broken]) -> tuple[int, ...]:
    return tuple(one.row for one in broken)


def columns_of(rows: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Return the columns of these names that are there."""
    there = set(rows.schema.names)
    found: list[Any] = [name for name in names if name in there]
    return rows.select(found)

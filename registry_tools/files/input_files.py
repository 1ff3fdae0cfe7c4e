"""The files that are scored or trained on: found, compared with each other, and opened."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.data.schema import quoted_names
from registry_tools.errors import InputError
from registry_tools.files import csv_rows
from registry_tools.files.addresses import open_filesystem, translate_read_errors, without_secrets
from registry_tools.files.csv_rows import CsvFormat

PARQUET_ENDINGS = (".parquet", ".pq")
_HIDDEN = re.compile(r"(^|/)[._]")  # a file or folder
ENDINGS = (*csv_rows.COMPRESSION, *PARQUET_ENDINGS)


@dataclass(frozen=True)
class InputFile:
    """One file, which several processes open by its name, some of them more than once."""

    path: str
    name: str  # as errors name it
    filesystem: fs.FileSystem
    fingerprint: tuple[int | None, ...]  # differs from that of a file that replaces it

    @contextlib.contextmanager
    def reading(self) -> Iterator[pa.NativeFile]:
        """Open it for the body to read, and compare its fingerprint before and after.

        Raises
        ------
        InputError
            If another file has its name, it was written to, or it cannot be read.
        """
        self._check_unchanged()
        try:
            with translate_read_errors(self.name), self.filesystem.open_input_file(self.path) as source:
                yield source
        except InputError:
            self._check_unchanged()  # that may be why
            raise
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        with translate_read_errors(self.name):
            if _fingerprint_of(self.path, self.filesystem) == self.fingerprint:
                return
        raise InputError(
            f"{self.name}: it was changed while it was read: score it again when nothing writes "
            "to it any more"
        )


@dataclass(frozen=True)
class FoundFiles:
    """A file, or the files of a folder, before any is opened; all are CSV or all are Parquet."""

    filesystem: fs.FileSystem
    path: str  # of the file or the folder
    files: tuple[tuple[str, str], ...]  # the path of each, and its name in errors
    is_parquet: bool

    @property
    def is_file(self) -> bool:
        """Whether the path is that of a file."""
        return self.files[0][0] == self.path


@dataclass(frozen=True)
class InputFiles:
    """One or more files of one format with the same columns."""

    path: str  # of the file, or of the folder that holds them
    files: tuple[InputFile, ...]
    schema: pa.Schema
    total: int  # rows of Parquet, bytes of CSV
    csv: CsvFormat | None  # None if they are Parquet
    row_groups: tuple[tuple[int, ...], ...] = ()  # the rows of each row group, by file
    metadata: pq.FileMetaData | None = field(default=None, repr=False)  # of the first Parquet file

    @property
    def local_paths(self) -> set[Path]:
        """The files and their folder, without links, if they are on this machine."""
        if not isinstance(self.files[0].filesystem, fs.LocalFileSystem):
            return set()
        return {Path(path).resolve() for path in (self.path, *(file.path for file in self.files))}


def open_files(address: str, form: CsvFormat | None = None) -> InputFiles:
    """Find a file, a folder of them, or a URL of either, and compare all schemas with the first.

    Raises
    ------
    InputError
        If there is nothing, a file is not readable or has a column twice, files differ in format
        or columns, or `form` has options of a CSV for Parquet.
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    found = find_files(address)
    filesystem = found.filesystem
    form = form or CsvFormat()
    if found.is_parquet:
        form.refuse_for_parquet(without_secrets(address))
    text = None if found.is_parquet else form
    files, schemas, groups, total, footer = [], [], [], 0, None
    for each, name in found.files:
        with translate_read_errors(name):
            files.append(InputFile(each, name, filesystem, _fingerprint_of(each, filesystem)))
            with filesystem.open_input_file(each) as source:
                if text is not None:
                    schemas.append(csv_rows.read_header(source, each, name, text))
                    total += filesystem.get_file_info(each).size or 0
                else:
                    parquet = pq.ParquetFile(source)
                    schemas.append(parquet.schema_arrow)
                    footer = footer or parquet.metadata
                    every = range(parquet.num_row_groups)
                    groups.append(tuple(parquet.metadata.row_group(place).num_rows for place in every))
                    total += sum(groups[-1])
        check_columns(schemas[-1], name, schemas[0], files[0].name)
    return InputFiles(found.path, tuple(files), schemas[0], total, text, tuple(groups), footer)


def find_files(address: str) -> FoundFiles:
    """Find a file, a folder of files, or a URL of either.

    Raises
    ------
    InputError
        If there is nothing, or a folder holds CSV and Parquet files.
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    where = without_secrets(address)
    with translate_read_errors(where):
        filesystem, path = open_filesystem(address)
        paths = _list_files(filesystem, path, where)
    kinds = {_ending(each) in PARQUET_ENDINGS for each in paths}
    if len(kinds) > 1:
        raise InputError(f"{where}: the folder holds CSV and Parquet files: keep one kind in it")
    names = (where if each == path else f"{where.rstrip('/')}/{_relative_path(each, path)}" for each in paths)
    return FoundFiles(filesystem, path, tuple(zip(paths, names, strict=True)), kinds == {True})


def _fingerprint_of(path: str, filesystem: fs.FileSystem) -> tuple[int | None, ...]:
    if isinstance(filesystem, fs.LocalFileSystem):
        with contextlib.suppress(OSError):
            found = os.stat(path)
            return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return ()
    info = filesystem.get_file_info(path)
    return (info.size, info.mtime_ns)


def _ending(path: str) -> str | None:
    """Return how a name ends; `?` and `#` end the name in a URL alone."""
    name = (urlsplit(path).path if "://" in path else path).lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def _relative_path(file: str, folder: str) -> str:
    return str(PurePosixPath(file).relative_to(PurePosixPath(folder)))


def _list_files(filesystem: fs.FileSystem, path: str, where: str) -> list[str]:
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        here = "" if "://" in where or Path(where).is_absolute() else f" (looked in {Path.cwd()})"
        raise InputError(f"{where}: there is no such file or folder{here}")
    if info.type != fs.FileType.Directory:
        if _ending(path) is None:
            raise InputError(f"{where}: unknown format; use one of {', '.join(ENDINGS)}")
        return [path]
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    found = sorted(
        file.path
        for file in inside
        # Spark, Hive and this program give names with `.` or `_` to files without data.
        if file.is_file and _ending(file.path) and not _HIDDEN.search(_relative_path(file.path, path))
    )
    if not found:
        raise InputError(f"{where}: no file in it ends with {', '.join(ENDINGS)}")
    return found


def refuse_doubled_columns(names: list[str], where: str) -> None:
    """Refuse a column that occurs twice.

    Raises
    ------
    InputError
        Names it and `where` it is.
    """
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(f"{where}: column {doubled[0]!r} stands twice: rename or drop one")


def check_columns(given: pa.Schema, where: str, wanted: pa.Schema, first: str) -> None:
    """Refuse a column that occurs twice, and columns that differ from the first file's.

    Raises
    ------
    InputError
        Names the file and the column.
    """
    refuse_doubled_columns(given.names, where)
    types, expected = ({column.name: column.type for column in schema} for schema in (given, wanted))
    missing = [name for name in expected if name not in types]
    added = [name for name in types if name not in expected]
    if missing or added:
        difference = f"lacks {quoted_names(missing)}" if missing else f"has {quoted_names(added)}"
        raise InputError(f"{where}: other columns than in {first}: it {difference}")
    for name, kind in expected.items():
        if types[name] != kind:
            raise InputError(f"{where}: column {name!r} holds {types[name]}, and in {first} {kind}")

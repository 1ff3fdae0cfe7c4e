"""The files that are scored: found, compared with each other, and read one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from registry_tools.batch.readers.file_identity import FileIdentity, fingerprint_of, translate_read_errors
from registry_tools.batch.readers.read_rows import BATCH_ROWS, Batch, read_csv, read_header, read_parquet
from registry_tools.data.schema import quoted_names
from registry_tools.errors import InputError, UnsupportedOperation

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True)
class InputFiles:
    """One or more files of one format with the same columns."""

    file_format: str  # csv or parquet
    filesystem: fs.FileSystem
    identities: tuple[FileIdentity, ...]
    schema: pa.Schema
    total: int  # rows of Parquet, bytes of CSV
    metadata: pq.FileMetaData | None = field(default=None, repr=False)  # of the first Parquet

    @property
    def is_text(self) -> bool:
        """Whether all values are text that is still to be read."""
        return self.file_format == "csv"

    @property
    def names(self) -> tuple[str, ...]:
        """The files as errors name them."""
        return tuple(one.name for one in self.identities)

    def batches(self, size: int = BATCH_ROWS) -> Iterator[Batch]:
        """Read all rows in order.

        Raises
        ------
        InputError
            If a file turns out to be broken, or is changed meanwhile.
        """
        done = 0
        for one in self.identities:
            last = 0
            with one.reading(), self.filesystem.open_input_file(one.path) as source:
                read = read_csv if self.is_text else read_parquet
                for batch in read(source, one.name, self.schema, size):
                    yield replace(batch, done=done + batch.done)
                    last = batch.done
            done += last


def without_secrets(url: str) -> str:
    """Return a path or URL without a user's name, password or query."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_files(address: str) -> InputFiles:
    """Find what is to be scored: a file, a folder of them, or a URL of either.

    Raises
    ------
    InputError
        If there is nothing, a file is not readable or has a column twice, or files differ in
        format or columns.
    UnsupportedOperation
        If the URL needs a package that is not installed.
    """
    where = without_secrets(address)
    with translate_read_errors(where):
        filesystem, path = _open_filesystem(address)
        found = _list_files(filesystem, path, where)
    formats = {SUFFIXES[_suffix(name)] for name in found}
    if len(formats) > 1:
        raise InputError(f"{where}: CSV and Parquet stand side by side: score them one by one")
    inside = f"{where.rstrip('/')}/"
    names = [where if f == path else inside + _relative_path(f, path) for f in found]
    return _compare_files(formats.pop(), filesystem, dict(zip(found, names, strict=True)))


def _suffix(path: str) -> str:
    """Return how a name ends; `?` and `#` end the name in a URL alone."""
    return PurePosixPath(urlsplit(path).path if "://" in path else path).suffix.lower()


def _relative_path(file: str, folder: str) -> str:
    return str(PurePosixPath(file).relative_to(PurePosixPath(folder)))


def _open_filesystem(address: str) -> tuple[fs.FileSystem, str]:
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
            f"{without_secrets(address)}: reading from there needs fsspec: install registry-pipeline[url]"
        ) from None
    try:
        found, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UnsupportedOperation(f"{without_secrets(address)}: {error}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def _list_files(filesystem: fs.FileSystem, path: str, where: str) -> list[str]:
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{where}: there is no such file or folder")
    if info.type != fs.FileType.Directory:
        if _suffix(path) not in SUFFIXES:
            raise InputError(f"{where}: unknown format; use one of {', '.join(SUFFIXES)}")
        return [path]
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    found = sorted(
        file.path
        for file in inside
        if file.type == fs.FileType.File
        and _suffix(file.path) in SUFFIXES
        # Names that Spark, Hive and this program give to what is no data.
        and not any(
            part.startswith((".", "_")) for part in PurePosixPath(_relative_path(file.path, path)).parts
        )
    )
    if not found:
        raise InputError(f"{where}: no file in it ends with {', '.join(SUFFIXES)}")
    return found


def _compare_files(file_format: str, filesystem: fs.FileSystem, names: dict[str, str]) -> InputFiles:
    """Read the schema of each file and compare it with the first, before any row is read."""
    schemas, identities, total, first = [], [], 0, None
    for path, name in names.items():
        with translate_read_errors(name):
            fingerprint = fingerprint_of(path, filesystem)
            identities.append(FileIdentity(path, name, fingerprint, filesystem))
            if file_format == "parquet":
                with filesystem.open_input_file(path) as file:
                    parquet = pq.ParquetFile(file)
                    schemas.append(parquet.schema_arrow)
                    total += parquet.metadata.num_rows
                    first = first or parquet.metadata
            else:
                schemas.append(read_header(filesystem, path, name))
                total += filesystem.get_file_info(path).size or 0
    for one, schema in zip(identities, schemas, strict=True):
        _refuse_duplicate_column(schema, one.name)
        _refuse_difference(schemas[0], identities[0].name, schema, one.name)
    return InputFiles(file_format, filesystem, tuple(identities), schemas[0], total, first)


def _refuse_duplicate_column(schema: pa.Schema, where: str) -> None:
    doubled = [name for name, count in Counter(schema.names).items() if count > 1]
    if doubled:
        raise InputError(f"{where}: column {doubled[0]!r} stands twice: rename or drop one")


def _refuse_difference(wanted: pa.Schema, first: str, given: pa.Schema, where: str) -> None:
    there, here = set(wanted.names), set(given.names)
    missing = [name for name in wanted.names if name not in here]
    added = [name for name in given.names if name not in there]
    if missing or added:
        difference = f"lacks {quoted_names(missing)}" if missing else f"has {quoted_names(added)}"
        raise InputError(f"{where}: other columns than in {first}: it {difference}")
    for name in wanted.names:
        if given.field(name).type != wanted.field(name).type:
            raise InputError(
                f"{where}: column {name!r} holds {given.field(name).type}, and in {first} "
                f"{wanted.field(name).type}"
            )

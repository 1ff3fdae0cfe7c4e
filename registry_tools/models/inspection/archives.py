"""Limit the expanded size of zip archives (skops, `.npz`) and `.npy` arrays."""

from __future__ import annotations

import copy
import io
import math
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from registry_tools.errors import VerificationError, first_line
from registry_tools.models.inspection.skops_schema import SCHEMA, check_schema, read_schema

_MIB = 1 << 20
# An archive may expand to FREE_BYTES, or to MOST_EXPANSION times its size if that is more. Compression
# reduces arrays of trees to a tenth of their size; malicious files expand a thousand times.
FREE_BYTES = 64 * _MIB
MOST_EXPANSION = 100
_BLOCK = 1 << 18
_MOST_HEADER_BYTES = 1 << 16
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
# The errors of the readers on a damaged file. NumPy parses the header of an array as Python source.
_READ_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, SyntaxError, RuntimeError),
    *(EOFError, MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def check_skops(path: Path) -> None:
    """Refuse a skops archive that expands too far, or whose arrays do not have their declared size.

    Raises
    ------
    VerificationError
        If the archive is refused; the message gives the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            budget = _Budget(path, path.name)
            sizes = _check_entries(path.name, archive, budget)
            schema = read_schema(path.name, archive)
            # skops reads a file again for each object that names it.
            files, node_files = check_schema(path.name, schema)
            for name, count in Counter(files).items():
                budget.spend(sizes.get(name, 0) * (count - 1))
            shapes = {
                name: _check_content(f"{path.name}/{name}", archive, name, sizes[name], budget)
                for name in sizes
                if name != SCHEMA
            }
    except _READ_ERRORS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error, 150)}") from error
    for name in node_files:
        if len(shapes.get(name) or ()) != 1:
            raise VerificationError(
                f"{path.name} has a Tree whose nodes are not a list: save the model again"
            )


def check_zip(path: Path, where: str) -> None:
    """Refuse a zip archive that expands too far, or whose arrays do not have their declared size.

    Parameters
    ----------
    path, where
        The file, and its name in messages.

    Raises
    ------
    VerificationError
        If the archive is refused; the message gives the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            budget = _Budget(path, where)
            for name, size in _check_entries(where, archive, budget).items():
                _check_content(f"{where}/{name}", archive, name, size, budget)
    except _READ_ERRORS as error:
        raise VerificationError(f"{where} is not readable: {first_line(error, 150)}") from error


class _Budget:
    """The number of bytes that an archive, with its inner archives, may still expand to."""

    def __init__(self, path: Path, where: str) -> None:
        self._where = where
        self._most = self._left = max(FREE_BYTES, MOST_EXPANSION * path.stat().st_size)

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise VerificationError(
                f"{self._where} expands to more than {self._most:,} bytes, which is {MOST_EXPANSION} times "
                "its size: save it without compression"
            )


def _check_entries(where: str, archive: zipfile.ZipFile, budget: _Budget) -> dict[str, int]:
    """Return the size of each entry in bytes, after checking that the declared sizes are right."""
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(sizes) != len(entries):
        raise VerificationError(f"{where} has two entries of the same name: save the model again")
    budget.spend(sum(sizes.values()))
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise VerificationError(
                f"{where}/{entry.filename} is encrypted, or compressed by another method than deflate: save "
                "the model without compression"
            )
        stored = entry.compress_type == zipfile.ZIP_STORED
        real = entry.compress_size if stored else _count_bytes(archive, entry)
        if real != entry.file_size:
            raise VerificationError(
                f"{where}/{entry.filename} does not have its declared size: save the model again"
            )
    return sizes


def _count_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Return the number of bytes of an entry; at most one more than it declares."""
    larger, total = copy.copy(entry), 0
    larger.file_size += 1
    with archive.open(larger) as file:
        while block := file.read(_BLOCK):
            total += len(block)
    return total


def _check_content(
    where: str, archive: zipfile.ZipFile, name: str, size: int, budget: _Budget
) -> tuple[int, ...] | None:
    """Check an entry, and return the shape of its array; None if it is not an array."""
    with archive.open(name) as file:
        magic = file.read(len(_NPY))
        file.seek(0)
        if magic == _NPY:
            return _check_array(where, file, size)
        if magic.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(file.read())) as inner:
                for inner_name, inner_size in _check_entries(where, inner, budget).items():
                    _check_content(f"{where}/{inner_name}", inner, inner_name, inner_size, budget)
    return None


def _check_array(where: str, file: IO[bytes], size: int) -> tuple[int, ...]:
    """Refuse an array with a too long header or a wrong declared size; return its shape."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise VerificationError(f"{where} has the version {version} of NumPy's format: save the model again")
    # The length has up to four bytes, so it can declare a header of gigabytes.
    prefix = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > min(size, _MOST_HEADER_BYTES):
        raise VerificationError(f"{where} has a header of {length:,} bytes: save the model again")
    shape, itemsize, objects = _parse_header(version, prefix + file.read(length))
    declared = math.prod(shape) * itemsize
    sensible = min(shape, default=0) >= 0 and (itemsize > 0 or math.prod(shape) == 0)
    if not sensible or (not objects and declared != size - file.tell()):
        raise VerificationError(
            f"{where} declares an array of {declared:,} bytes and holds {size - file.tell():,}: save the "
            "model again"
        )
    return shape


@lru_cache(1024)  # the arrays of a forest share a few headers
def _parse_header(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], int, bool]:
    """Return the shape, the bytes of an item, and whether the items are Python objects."""
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about headers that Python 2 wrote
        shape, _, dtype = read(io.BytesIO(header))
    return tuple(shape), dtype.itemsize, dtype.hasobject

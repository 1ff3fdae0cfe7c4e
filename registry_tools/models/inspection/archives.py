"""Caps on zip archives (skops, `.npz`) and `.npy` arrays: what they expand to, before they do."""

from __future__ import annotations

import copy
import io
import json
import math
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np

from registry_tools.errors import VerificationError, first_line

_MIB = 1 << 20
# An archive may expand to this many bytes, or to this many times its size, whichever is more.
# NumPy's own arrays of trees shrink to a tenth; a file made to explode, to a thousandth.
FREE_BYTES = 64 * _MIB
MOST_EXPANSION = 100
# Each value of the schema costs about 100 bytes of memory; a forest of a million nodes has 300,000.
MOST_SCHEMA_VALUES = 10_000_000
_SCHEMA = "schema.json"
# How skops writes objects of compiled code, by module. It would also build them by a call of their
# class: `BallTree` crashes in its constructor if it gets too few weights.
_COMPILED = {
    "sklearn.tree._tree": "TreeNode",
    "sklearn.neighbors._kd_tree": "ObjectNode",
    "sklearn.neighbors._ball_tree": "ObjectNode",
    "sklearn.metrics._dist_metrics": "ObjectNode",
}
_BLOCK = 1 << 18
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
# What reading a broken file may raise: NumPy parses the header of an array as Python.
_READ_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, SyntaxError, RuntimeError),
    *(EOFError, MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def check_skops(path: Path) -> None:
    """Refuse a skops archive that expands too far, or whose arrays are not as large as they say.

    Raises
    ------
    VerificationError
        Says what is wrong with the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            budget = _Budget(path, path.name)
            sizes = _check_entries(path.name, archive, budget)
            schema = _read_schema(path.name, archive)
            # skops reads a file once for each object that names it.
            for name, count in Counter(_check_schema(path.name, schema)).items():
                budget.spend(sizes.get(name, 0) * (count - 1))
            for name in sizes:
                if name != _SCHEMA:
                    _check_content(f"{path.name}/{name}", archive, name, sizes[name], budget)
    except _READ_ERRORS as error:
        raise VerificationError(f"{path.name} is not readable: {first_line(error, 150)}") from error


def check_npz(path: Path, where: str) -> None:
    """Refuse a NumPy archive that expands too far, or whose arrays are not as large as they say.

    Parameters
    ----------
    path, where
        The file, and its name in messages.

    Raises
    ------
    VerificationError
        Says what is wrong with the archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            budget = _Budget(path, where)
            for name, size in _check_entries(where, archive, budget).items():
                _check_content(f"{where}/{name}", archive, name, size, budget)
    except _READ_ERRORS as error:
        raise VerificationError(f"{where} is not readable: {first_line(error, 150)}") from error


class _Budget:
    """The bytes that one archive may still expand to, archives within it included."""

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
    """Return the real size of each entry, bytes, where it is the declared one."""
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
        # One more byte than declared is read, if there is one.
        larger = copy.copy(entry)
        larger.file_size += 1
        stored = entry.compress_type == zipfile.ZIP_STORED
        real = entry.compress_size if stored else _count_bytes(archive, larger)
        if real != entry.file_size:
            raise VerificationError(f"{where}/{entry.filename} is not as large as the archive says")
    return sizes


def _count_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    total = 0
    with archive.open(entry) as file:
        while block := file.read(_BLOCK):
            total += len(block)
    return total


def _read_schema(where: str, archive: zipfile.ZipFile) -> Any:
    text = archive.read(_SCHEMA)
    if sum(text.count(sign) for sign in (b",", b"[", b"{")) > MOST_SCHEMA_VALUES:
        raise VerificationError(
            f"{where}/{_SCHEMA} has more than {MOST_SCHEMA_VALUES:,} values: train a model with fewer trees"
        )
    return json.loads(text)


def _check_schema(where: str, schema: Any) -> list[str]:
    """Return the files that the objects of a schema name, one entry an object.

    An object that occurs again has the number of the first, `__id__`, and skops follows that number.
    It writes the object out each time. A number alone, or another object under the same number, is
    not its work: a few lists of such numbers take years to follow.
    """
    counts: dict[Any, int] = {}
    files: dict[Any, set[str]] = {}

    def count(value: Any) -> int:
        _check_loader(where, value)
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        total = 1 + sum(count(child) for child in children if isinstance(child, (dict, list)))
        number = value.get("__id__") if isinstance(value, dict) else None
        if isinstance(number, (dict, list)):  # an attribute of this name
            number = None
        if isinstance(value, dict) and isinstance(value.get("file"), str):
            files.setdefault(number or object(), set()).add(value["file"])
        if number and counts.setdefault(number, total) != total:
            raise VerificationError(
                f"{where}/{_SCHEMA} has two objects of the number {str(number)[:30]}: save the model again"
            )
        return total

    count(schema)
    return [name for names in files.values() for name in names]


def _check_loader(where: str, value: Any) -> None:
    """Refuse an object of compiled code that skops would build in another way than it saves it."""
    module = str(value.get("__module__")) if isinstance(value, dict) else ""
    if module in _COMPILED and value.get("__loader__") != _COMPILED[module]:
        raise VerificationError(
            f"{where}/{_SCHEMA} builds a {str(value.get('__class__'))[:50]} by "
            f"{str(value.get('__loader__'))[:50]}, which skops does not write for it: save the model again"
        )


def _check_content(where: str, archive: zipfile.ZipFile, name: str, size: int, budget: _Budget) -> None:
    with archive.open(name) as file:
        magic = file.read(len(_NPY))
        file.seek(0)
        if magic == _NPY:
            _check_array(where, file, size)
        elif magic.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(file.read())) as inner:
                for inner_name, inner_size in _check_entries(where, inner, budget).items():
                    _check_content(f"{where}/{inner_name}", inner, inner_name, inner_size, budget)


def _check_array(where: str, file: IO[bytes], size: int) -> None:
    """Refuse an array whose header is too long, or which does not have the bytes that it declares."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise VerificationError(f"{where} has the version {version} of NumPy's format: save the model again")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    # A length of four bytes may declare a header of gigabytes.
    length = int.from_bytes(file.read(2 if first else 4), "little")
    if length > min(size, 1 << 16):
        raise VerificationError(f"{where} has a header of {length:,} bytes: save the model again")
    file.seek(len(_NPY) + 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, _, dtype = read(file)
    declared = math.prod(shape) * dtype.itemsize
    sensible = min(shape, default=0) >= 0 and (dtype.itemsize > 0 or math.prod(shape) == 0)
    if not sensible or (not dtype.hasobject and declared != size - file.tell()):
        raise VerificationError(
            f"{where} declares an array of {declared:,} bytes and holds {size - file.tell():,}: save the "
            "model again"
        )

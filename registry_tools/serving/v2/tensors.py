"""The tensors of the Open Inference Protocol, read from JSON and from bytes, and written."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.schema import quoted_names
from registry_tools.errors import InputError

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
_MOST_DIMENSIONS = 8
_MOST_VALUES = 1 << 40  # of a row
_LONGEST_SHOWN = 50  # characters of a request that a message repeats
_MOST_NAMES = 5


@dataclass(frozen=True)
class Tensor:
    """A named array; the dtype of texts is object."""

    name: str
    values: npt.NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of its type."""
        return datatype_of(self.values.dtype)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a NumPy type; `BYTES` for texts and all that it has no name for."""
    return _DATATYPES.get(dtype, BYTES)


def shown(text: str) -> str:
    """Return a name that a client sent, quoted and cut, for a message."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def is_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: JSON may hold halves of surrogate pairs, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def listed(names: Collection[str]) -> str:
    """Return the first names of a list, quoted, for a message."""
    more = len(names) - _MOST_NAMES
    return quoted_names(islice(names, _MOST_NAMES)) + (f" and {more} more" if more > 0 else "")


def checked_shape(name: str, datatype: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return the shape of a tensor that a client announces.

    Raises
    ------
    InputError
        If the shape is none, or the datatype is unknown.
    """
    if datatype != BYTES and datatype not in DTYPES:
        known = ", ".join([*DTYPES, BYTES])
        raise InputError(f"tensor {shown(name)}: the datatype is none of {known}")
    if not 1 <= len(shape) <= _MOST_DIMENSIONS or not all(
        type(length) is int and (length > 0 or length == place == 0) for place, length in enumerate(shape)
    ):
        raise InputError(
            f"tensor {shown(name)}: the shape is not a list of 1 to {_MOST_DIMENSIONS} lengths, of which "
            "only the first, the number of rows, may be 0"
        )
    if math.prod(shape[1:]) > _MOST_VALUES:
        raise InputError(f"tensor {shown(name)}: a row of its shape has more than {_MOST_VALUES} values")
    return tuple(shape)


def from_values(name: str, datatype: str, shape: Sequence[Any], values: Any) -> Tensor:
    """Read a tensor from the values of JSON, flat or nested, in row-major order.

    Raises
    ------
    InputError
        If they are more or fewer than the shape says, or not of the datatype.
    """
    lengths = checked_shape(name, datatype, shape)
    if not isinstance(values, list):
        raise InputError(f"tensor {shown(name)}: its data is missing, or not a list")
    values = np.array(values, object).ravel().tolist()
    kinds = set(map(type, values))
    if list in kinds:
        raise InputError(f"tensor {shown(name)}: its data is nested unevenly, or too deep")
    count = math.prod(lengths)
    if len(values) != count:
        raise InputError(f"tensor {shown(name)}: {len(values)} values, and its shape is for {count}")
    if datatype == BYTES:
        if not kinds <= {str} or not is_unicode("".join(values)):
            raise InputError(f"tensor {shown(name)}: a value of BYTES is not Unicode text")
        return Tensor(name, np.array(values, object).reshape(lengths))
    dtype = DTYPES[datatype]
    wanted: set[type] = {int}
    if dtype.kind in "bf":
        wanted = {bool} if dtype.kind == "b" else {int, float, type(None)}
    if not kinds <= wanted:
        raise InputError(f"tensor {shown(name)}: a value is not of its datatype {datatype}")
    try:
        with np.errstate(over="raise"):
            found = np.array(values, dtype)
    except (OverflowError, FloatingPointError):
        raise InputError(f"tensor {shown(name)}: a value is larger than {datatype} holds") from None
    return Tensor(name, found.reshape(lengths))


def from_bytes(name: str, datatype: str, shape: Sequence[Any], raw: bytes | memoryview) -> Tensor:
    """Read a tensor from its bytes: little-endian; texts each after their length in four bytes.

    Raises
    ------
    InputError
        If there are more or fewer bytes than the shape says.
    """
    lengths = checked_shape(name, datatype, shape)
    count = math.prod(lengths)
    if datatype == BYTES:
        return Tensor(name, _texts(name, count, raw).reshape(lengths))
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InputError(
            f"tensor {shown(name)}: {len(raw)} bytes, and its shape is for {count * dtype.itemsize}"
        )
    return Tensor(name, np.frombuffer(raw, dtype).reshape(lengths))


def _texts(name: str, count: int, raw: bytes | memoryview) -> npt.NDArray[Any]:
    texts: list[str] = []
    place = 0
    try:
        for _ in range(count):
            (length,) = struct.unpack_from("<I", raw, place)
            begin, place = place + 4, place + 4 + length
            texts.append(str(raw[begin:place], "utf-8"))
    except (struct.error, UnicodeDecodeError):
        place = -1
    if place != len(raw):
        raise InputError(f"tensor {shown(name)}: its bytes are not the {count} texts of its shape")
    return np.array(texts, object)


def to_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor, as `from_bytes` reads them."""
    if tensor.datatype != BYTES:
        return tensor.values.tobytes()
    texts = [str(text).encode() for text in tensor.values.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)

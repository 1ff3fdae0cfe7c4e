"""Thrift's compact protocol, in which the footer of a Parquet file is written: read and written.

Only what a footer has: nothing is known of its fields, so that those of a newer version of the
format are handed on as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS = {_I16, _I32, _I64}
_LISTS = {_LIST, _SET}


@dataclass
class ThriftField:
    """One field of a struct; a struct is a list of them, a list the type of its items and them."""

    number: int
    kind: int
    value: Any


Struct = list[ThriftField]


def get_field(struct: Struct, number: int, default: Any = None) -> Any:
    """Return the value of a field."""
    return next((field.value for field in struct if field.number == number), default)


def set_field(struct: Struct, number: int, value: Any) -> None:
    """Set a field that is there; one that is not stays away."""
    for field in struct:
        if field.number == number:
            field.value = value


def without_fields(struct: Struct, *numbers: int) -> Struct:
    """Return a struct without some fields."""
    return [field for field in struct if field.number not in numbers]


class ThriftReader:
    """Reads one struct from bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def struct(self) -> Struct:
        """Read a struct.

        Raises
        ------
        ValueError
            If it holds what no footer holds.
        IndexError
            If it ends too early.
        """
        fields: Struct = []
        number = 0
        while head := self._byte():
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else _unzigzag(self._varint())
            value = kind == _TRUE if kind in {_TRUE, _FALSE} else self._value(kind)
            fields.append(ThriftField(number, kind, value))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return _unzigzag(self._varint())
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind in _LISTS:
            head = self._byte()
            size = head >> 4
            if size == 15:
                size = self._varint()
            inner = head & 0x0F
            return inner, [self._value(inner) for _ in range(size)]
        if kind in {_TRUE, _FALSE, _BYTE}:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError(f"type {kind} in a Parquet footer")

    def _byte(self) -> int:
        self._position += 1
        return self._content[self._position - 1]

    def _bytes(self, size: int) -> bytes:
        self._position += size
        if self._position > len(self._content):
            raise IndexError("the footer ends too early")
        return self._content[self._position - size : self._position]

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def serialize(struct: Struct) -> bytes:
    """Return a struct as bytes."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


def _write_struct(out: bytearray, struct: Struct) -> None:
    before = 0
    for field in sorted(struct, key=lambda field: field.number):
        kind = field.kind
        if kind in {_TRUE, _FALSE}:
            kind = _TRUE if field.value else _FALSE
        step = field.number - before
        if 0 < step < 16:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _write_varint(out, _zigzag(field.number))
        before = field.number
        if kind not in {_TRUE, _FALSE}:
            _write_value(out, kind, field.value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _write_varint(out, _zigzag(value))
    elif kind == _BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == _STRUCT:
        _write_struct(out, value)
    elif kind in _LISTS:
        inner, items = value
        out.append(min(len(items), 15) << 4 | inner)
        if len(items) >= 15:
            _write_varint(out, len(items))
        for item in items:
            _write_value(out, inner, item)
    elif kind == _DOUBLE:
        out += value
    else:
        out.append(value)


def _write_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def _unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)

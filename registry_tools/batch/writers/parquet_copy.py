"""Parquet with columns added: the columns of a file are copied as they are encoded.

Decoding a table only to encode it again costs more than most models do. A Parquet file is row
groups of column chunks, and a footer that says where they are: the chunks are copied byte for byte,
those of the added columns go beside them, and a new footer names both.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from registry_tools.batch.readers.file_identity import translate_read_errors
from registry_tools.batch.writers import thrift
from registry_tools.batch.writers.thrift import Struct, ThriftField, get_field, without_fields
from registry_tools.errors import VerificationError

_MAGIC = b"PAR1"
_COPY_BYTES = 8 << 20  # bytes at once
_LARGEST_FOOTER = 64 << 20
_ARROW = b"ARROW:schema"
# Fields of the format, by struct: see parquet.thrift.
_SCHEMA, _ROWS, _GROUPS, _METADATA, _ORDERS = 2, 3, 4, 5, 7
_CHILDREN = 5
_CHUNKS, _BYTES, _GROUP_ROWS, _GROUP_OFFSET, _COMPRESSED, _ORDINAL = 1, 2, 3, 5, 6, 7
_CHUNK_FILE, _CHUNK_OFFSET, _CHUNK_META, _INDEXES, _CRYPTO = 1, 2, 3, (4, 5, 6, 7), (8, 9)
_CHUNK_SIZE, _DATA, _INDEX, _DICTIONARY, _BLOOM = 7, 9, 10, 11, (14, 15)
_LIST, _STRUCT, _I64, _BINARY = 9, 12, 6, 8


@dataclass(frozen=True)
class ParquetFooter:
    """The footer of a Parquet file."""

    path: str
    content: Struct

    @property
    def schema(self) -> list[Struct]:
        """The schema, depth first; the first element is the root."""
        schema: list[Struct] = get_field(self.content, _SCHEMA)[1]
        return schema

    @property
    def groups(self) -> list[Struct]:
        """The row groups."""
        groups: list[Struct] = get_field(self.content, _GROUPS)[1]
        return groups

    def rows_of(self, place: int) -> int:
        """Return the rows of a row group."""
        rows: int = get_field(self.groups[place], _GROUP_ROWS)
        return rows


def read_footer(path: str) -> ParquetFooter | None:
    """Read a footer; None if its file has to be read in another way."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        end = file.read(8)
        size = int.from_bytes(end[:4], "little")
        if end[4:] != _MAGIC or size > _LARGEST_FOOTER:
            return None
        file.seek(-8 - size, os.SEEK_END)
        try:
            found = ParquetFooter(path, thrift.ThriftReader(file.read(size)).struct())
            is_plain = all(
                _is_plain(chunk) for group in found.groups for chunk in get_field(group, _CHUNKS)[1]
            )
        except (ValueError, IndexError, TypeError):
            return None
    return found if is_plain else None


def _is_plain(chunk: Struct) -> bool:
    """Tell whether a chunk stands in this file, and is not encrypted."""
    elsewhere = get_field(chunk, _CHUNK_FILE) is not None
    return not elsewhere and all(get_field(chunk, number) is None for number in _CRYPTO)


class RowGroupCopier:
    """Writes one file of the row groups of others, each with columns added."""

    def __init__(self, path: Path, first: ParquetFooter) -> None:
        """Begin a file; `first` is of the first file to copy: the others have its schema."""
        self._file: IO[bytes] = path.open("wb")
        self._file.write(_MAGIC)
        self._first = first
        self._added: ParquetFooter | None = None
        self._groups: list[Struct] = []
        self._rows = 0

    def copy_row_group(self, given: ParquetFooter, place: int, part: Path) -> None:
        """Write a row group of a file, and beside it the only one of `part`, a file as long."""
        added = read_footer(str(part))
        assert added is not None
        if self._added is None:
            self._added = added
        if added.schema != self._added.schema:
            raise VerificationError("the model predicts now one type, now another")
        group, other = given.groups[place], added.groups[0]
        start = self._file.tell()
        chunks = [*self._copy_chunks(given, group), *self._copy_chunks(added, other)]
        new = without_fields(group, _ORDINAL, _GROUP_OFFSET, _COMPRESSED)
        thrift.set_field(new, _CHUNKS, (_STRUCT, chunks))
        thrift.set_field(new, _BYTES, get_field(group, _BYTES) + get_field(other, _BYTES))
        new.append(ThriftField(_GROUP_OFFSET, _I64, start))
        new.append(ThriftField(_COMPRESSED, _I64, self._file.tell() - start))
        self._groups.append(new)
        self._rows += get_field(group, _GROUP_ROWS)

    def _copy_chunks(self, given: ParquetFooter, group: Struct) -> list[Struct]:
        """Copy the chunks of a row group; return them as the new file has them."""
        chunks: list[Struct] = []
        with contextlib.ExitStack() as stack:
            with translate_read_errors(given.path):
                source = stack.enter_context(open(given.path, "rb"))
            for chunk in get_field(group, _CHUNKS)[1]:
                meta = without_fields(get_field(chunk, _CHUNK_META), *_BLOOM)
                meta = [ThriftField(field.number, field.kind, field.value) for field in meta]
                here = self._file.tell()
                # A chunk without rows may stand nowhere.
                begin = min(
                    filter(None, (get_field(meta, _DICTIONARY), get_field(meta, _DATA))), default=here
                )
                shift = here - begin
                _copy(source, begin, get_field(meta, _CHUNK_SIZE), self._file)
                for number in (_DATA, _INDEX, _DICTIONARY):
                    if get_field(meta, number):
                        thrift.set_field(meta, number, get_field(meta, number) + shift)
                new = without_fields(chunk, _CHUNK_META, _CHUNK_OFFSET, *_INDEXES)
                new += [ThriftField(_CHUNK_OFFSET, _I64, 0), ThriftField(_CHUNK_META, _STRUCT, meta)]
                chunks.append(new)
        return chunks

    def close(self) -> None:
        """Close the file without a footer: it is no Parquet."""
        self._file.close()

    def write_footer(self, schema: pa.Schema) -> None:
        """Write the footer; the schema is what Arrow is to read the columns as."""
        assert self._added is not None
        given, added = self._first, self._added
        root = [ThriftField(field.number, field.kind, field.value) for field in given.schema[0]]
        thrift.set_field(root, _CHILDREN, get_field(root, _CHILDREN) + get_field(added.schema[0], _CHILDREN))
        content = without_fields(given.content, _SCHEMA, _ROWS, _GROUPS, _METADATA, _ORDERS)
        content += [
            ThriftField(_SCHEMA, _LIST, (_STRUCT, [root, *given.schema[1:], *added.schema[1:]])),
            ThriftField(_ROWS, _I64, self._rows),
            ThriftField(_GROUPS, _LIST, (_STRUCT, self._groups)),
            ThriftField(_METADATA, _LIST, (_STRUCT, self._metadata(schema))),
        ]
        orders = [get_field(one.content, _ORDERS) for one in (given, added)]
        if None not in orders:
            together = [order for _, some in orders for order in some]
            content.append(ThriftField(_ORDERS, _LIST, (_STRUCT, together)))
        footer = thrift.serialize(content)
        self._file.write(footer + len(footer).to_bytes(4, "little") + _MAGIC)
        self._file.flush()

    def _metadata(self, schema: pa.Schema) -> list[Struct]:
        kept = [
            pair
            for pair in get_field(self._first.content, _METADATA, (_STRUCT, []))[1]
            if get_field(pair, 1) != _ARROW
        ]
        encoded = base64.b64encode(schema.serialize().to_pybytes())
        return [*kept, [ThriftField(1, _BINARY, _ARROW), ThriftField(2, _BINARY, encoded)]]


def _copy(source: IO[bytes], begin: int, size: int, target: IO[bytes]) -> None:
    source.seek(begin)
    while size:
        with translate_read_errors(str(source.name)):
            content = source.read(min(size, _COPY_BYTES))
            if not content:
                raise OSError("it ends before the last of its columns")
        target.write(content)
        size -= len(content)


def same_schema_footers(footers: Sequence[ParquetFooter | None]) -> list[ParquetFooter] | None:
    """Return footers, if each is there and all have the same columns in the same file_format."""
    present = [one for one in footers if one is not None]
    if len(present) < len(footers) or any(one.schema != present[0].schema for one in present):
        return None
    return present

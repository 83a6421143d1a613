"""What the pages of a Parquet file say of themselves, before memory is taken at their word.

The sizes in a file's footer and those in front of each page are written independently, and a reader
takes as much memory as the latter say.

Reference: https://parquet.apache.org/docs/file-format (PageHeader in parquet.thrift), and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vlmkit.errors import VlmkitError, brief
from vlmkit.files import open_file
from vlmkit.files.varint import read_varint

MAX_PAGE_HEADER_BYTES = 16 * 2**20
"""As in Arrow: a header may hold the smallest and the largest text of its page."""
_FIRST_READ = 512
_DICTIONARY_PAGE = 2
_DELTA_BYTE_ARRAY = 7  # each text by how much it shares with the one before it
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8  # fields of a PageHeader
_MAX_DEPTH = 8


class _Page(NamedTuple):
    """What a page says of itself."""

    kind: int
    uncompressed: int  # bytes
    num_values: int
    encoding: int


def check_pages(
    path: Path, metadata: Any, number: int, columns: Collection[str], *, max_bytes: int
) -> None:
    """Refuse a row group whose pages are not what its footer says, or take too much memory.

    Args:
        path: the file.
        metadata: its footer, as pyarrow reads it.
        number: of the row group.
        columns: names of those that will be read.
        max_bytes: of all their pages in memory.

    Raises:
        VlmkitError: says which column, and what is wrong.
    """
    names, total = set(columns), 0
    group = metadata.row_group(number)
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            for place in range(group.num_columns):
                column = group.column(place)
                name = column.path_in_schema
                if names.isdisjoint(accumulate(name.split("."), "{}.{}".format)):
                    continue
                where = f"{path}: row group {number}: column {brief(name)}"
                total += _check_chunk(file, column, size, where)
                if total > max_bytes:
                    raise VlmkitError(
                        f"{where}: its pages and those before it take {total / 2**30:,.1f} GiB, "
                        f"and at most {max_bytes / 2**30:g} are read at once; write smaller row "
                        "groups"
                    )
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None


def _check_chunk(file: BinaryIO, column: Any, size: int, where: str) -> int:
    """The bytes that the pages of a column take in memory."""
    start = column.data_page_offset
    if column.has_dictionary_page:
        start = min(start, column.dictionary_page_offset)
    end = start + column.total_compressed_size
    if not 0 <= start <= end <= size:
        raise VlmkitError(f"{where}: reaches beyond the file's {size:,} bytes; fetch it again")
    num_bytes = num_values = 0
    for page in _pages(file, start, end, where):
        num_bytes += page.uncompressed
        if page.encoding == _DELTA_BYTE_ARRAY:
            raise VlmkitError(
                f"{where}: is written as DELTA_BYTE_ARRAY, which does not tell how large it is; "
                "write it with another encoding"
            )
        if page.kind != _DICTIONARY_PAGE:
            num_values += page.num_values
        elif not column.has_dictionary_page:
            raise VlmkitError(f"{where}: has a dictionary that the footer lacks; fetch it again")
    if num_values > column.num_values:
        raise VlmkitError(
            f"{where}: its pages have {num_values:,} values, and the footer says "
            f"{column.num_values:,}; fetch it again"
        )
    return num_bytes


def _pages(file: BinaryIO, start: int, end: int, where: str) -> Iterator[_Page]:
    while start < end:
        fields, length = _header(file, start, end, where)
        part: Any = next((fields[n] for n in (_DATA, _DICTIONARY, _DATA_V2) if n in fields), {})
        inner = part if isinstance(part, dict) else {}
        encoding = inner.get(4 if _DATA_V2 in fields else 2, 0)
        sizes = fields.get(1, -1), fields.get(2, -1), fields.get(3, -1), inner.get(1, 0), encoding
        if not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise VlmkitError(f"{where}: a page without a size; fetch the file again")
        kind, uncompressed, compressed, num_values, _ = sizes
        start += length + compressed
        if start > end:
            raise VlmkitError(f"{where}: a page reaches beyond its end; fetch the file again")
        yield _Page(kind, uncompressed, num_values, encoding)


def _header(file: BinaryIO, start: int, end: int, where: str) -> tuple[dict[int, Any], int]:
    """The fields of a page's header, and its length."""
    most = _FIRST_READ
    while True:
        file.seek(start)
        data = file.read(min(most, end - start))
        try:
            return _struct(data, 0)
        except IndexError:
            if len(data) < most or most >= MAX_PAGE_HEADER_BYTES:
                raise VlmkitError(f"{where}: a page without a header; fetch it again") from None
        except ValueError:
            raise VlmkitError(f"{where}: a page with a broken header; fetch it again") from None
        most *= 32


def _struct(data: bytes, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    found: dict[int, Any] = {}
    number = 0
    while True:
        head = data[place]
        place += 1
        if head == 0:
            return found, place
        if head >> 4:
            number += head >> 4
        else:
            number, place = _integer(data, place)
        if (kind := head & 15) not in (1, 2):  # of a boolean the kind is the value
            found[number], place = _value(data, place, kind, depth)


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (4, 5, 6):
        return _integer(data, place)
    if kind == 8:
        length, place = read_varint(data, place)
        if place + length > len(data):
            raise IndexError
        return None, place + length
    if kind == 12:
        return _struct(data, place, depth + 1)
    if kind in (1, 2, 3, 7):
        return None, place + (8 if kind == 7 else 1)
    raise ValueError("no kind that a page's header has")


def _integer(data: bytes, place: int) -> tuple[int, int]:
    value, place = read_varint(data, place)
    return (value >> 1) ^ -(value & 1), place

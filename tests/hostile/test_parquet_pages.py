"""Parquet files whose pages say other sizes than their footer: refused before memory is taken."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.effort import scaled
from tests.hostile.limited import is_one_line, message_of
from vlmkit.experiment.data import ParquetConfig
from vlmkit.experiment.data.parquet import parquet
from vlmkit.experiment.data.parquet_pages import check_pages

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
PLAIN = {"use_dictionary": False, "compression": "none"}


def zigzag(value: int) -> bytes:
    value, found = value << 1 if value >= 0 else (-value << 1) - 1, b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def header(kind: int, uncompressed: int, compressed: int, num_values: int, encoding: int) -> bytes:
    """A PageHeader; all its numbers are of the type i32 and stand one field after the other."""
    numbers = b"".join(b"\x15" + zigzag(n) for n in (kind, uncompressed, compressed))
    part = b"".join(b"\x15" + zigzag(n) for n in (num_values, encoding, 3, 3))
    return numbers + (b"\x4c" if kind == 2 else b"\x2c") + part + b"\0\0"


def forge(path: Path, **changes: int) -> None:
    """Write a file, and another header in front of its only page."""
    pq.write_table(pa.table({"question": ["what is it?" * 40] * 9}), path, **PLAIN)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    length = column.total_compressed_size
    fields = {"kind": 0, "uncompressed": 9, "compressed": 9, "num_values": 9, "encoding": 0}
    head = header(**{**fields, **changes})
    if "compressed" not in changes:
        head = header(**{**fields, **changes, "compressed": length - len(head) - 1})
    content = path.read_bytes()
    page = (head + bytes(length))[:length]
    start = column.data_page_offset
    path.write_bytes(content[:start] + page + content[start + length :])


CASES: dict[str, tuple[dict[str, int], str]] = {
    "size": ({"uncompressed": 2**31 - 1}, "take 2.0 GiB, and at most 1 are read at once"),
    "values": ({"num_values": 10**9}, "its pages have 1,000,000,000 values, and the footer says 9"),
    "dictionary": ({"kind": 2}, "has a dictionary that the footer lacks"),
    "encoding": ({"encoding": 7}, "is written as DELTA_BYTE_ARRAY"),
    "length": ({"compressed": 10**6}, "a page reaches beyond its end"),
    "negative": ({"uncompressed": -5}, "a page without a size"),
}


@pytest.mark.parametrize("case", CASES)
def test_pages_that_lie(case: str, tmp_path: Path) -> None:
    changes, problem = CASES[case]
    forge(tmp_path / "x.parquet", **changes)
    told = message_of(lambda: parquet(ParquetConfig(path="x.parquet"), tmp_path).read(0)) or ""
    assert f"{tmp_path / 'x.parquet'}: row group 0: column 'question'" in told
    assert problem in told
    assert is_one_line(told)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_sound_files_are_read(version: str, compression: str, tmp_path: Path) -> None:
    images = [{"bytes": bytes([n] * 5000), "path": None} for n in range(60)]
    columns = {
        "question": [f"what? {n % 7}" * 300 for n in range(60)],
        "answer": [["a", "b"] if n % 2 else [] for n in range(60)],
        "a.b": [None, 1.5, 2.5] * 20,
        "image": images,
    }
    pq.write_table(
        pa.table(columns),
        tmp_path / "x.parquet",
        data_page_version=version,
        compression=compression,
        data_page_size=10_000,
        row_group_size=25,
        write_page_index=True,
    )
    metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
    for number in range(3):
        check_pages(tmp_path / "x.parquet", metadata, number, columns, max_bytes=2**20)
        problem = message_of(
            lambda number=number: check_pages(
                tmp_path / "x.parquet", metadata, number, columns, max_bytes=2**10
            )
        )
        assert "are read at once" in (problem or "")
    assert (
        parquet(ParquetConfig(path="x.parquet"), tmp_path).read_text(59).question == "what? 3" * 300
    )


def of_one_column(start: int, length: int) -> Any:
    column = SimpleNamespace(
        path_in_schema="a",
        data_page_offset=start,
        has_dictionary_page=False,
        total_compressed_size=length,
        num_values=9,
    )
    group = SimpleNamespace(num_columns=1, column=lambda place: column)
    return SimpleNamespace(row_group=lambda number: group)


def test_a_column_beyond_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(9))
    for start, length in ((-1, 5), (5, 5), (5, -1)):
        metadata = of_one_column(start, length)
        told = message_of(lambda m=metadata: check_pages(tmp_path / "x", m, 0, ["a"], max_bytes=9))
        assert "reaches beyond the file's 9 bytes" in (told or "")


@given(st.binary(min_size=1, max_size=60))
@settings(max_examples=scaled(100))
def test_any_bytes_are_pages_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "pages"
    path.write_bytes(content)
    metadata = of_one_column(0, len(content))
    told = message_of(lambda: check_pages(path, metadata, 0, ["a"], max_bytes=2**20))
    assert told is None or is_one_line(told)

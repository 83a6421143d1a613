"""Parquet files, as the hub keeps data sets."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.data.base import Rows, check_count
from vlmkit.experiment.data.columns import (
    ColumnsConfig,
    Row,
    check_columns,
    image_keys,
    row_id,
    to_sample,
)
from vlmkit.experiment.data.files import resolve_file, resolve_folder
from vlmkit.experiment.data.parquet_pages import check_pages
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shown import listed
from vlmkit.files import find_folder

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_GROUPS = 2  # row groups in memory
MAX_GROUP_BYTES = 2**30
"""Of a row group in memory, by what the file says; those of the hub have some 100 MB."""
_WIDTH = 8  # bytes: of a number, and of a place in a dictionary
MISSING = "needs pyarrow; install it with: pip install 'vlmkit[data]'"


class ParquetConfig(ColumnsConfig):
    """A Parquet file, or the files of a folder one after the other."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(
        min_length=1, description="a file, or a folder of .parquet files, relative to this file"
    )


class _Group(NamedTuple):
    """A row group: rows that are read together."""

    path: Path
    number: int  # in the file
    first: int  # its first row, of all files
    first_in_file: int


def parquet(config: ParquetConfig, base: Path) -> Rows:
    """Read the ids of Parquet files; a row group is read when a row of it is asked for.

    Images are paths relative to the file, encoded images, or the hub's ``{bytes, path}``.

    Raises:
        VlmkitError: pyarrow is not installed, a file can't be read, a column is missing.
    """
    paths = _files(config.path, base)
    groups, count = _groups(paths)
    names = _columns(config, paths[0])
    images = image_keys(config, names)
    texts = tuple(name for name in names if name not in images)
    starts = [group.first for group in groups]

    @functools.lru_cache(maxsize=KEPT_GROUPS)
    def table(place: int, columns: tuple[str, ...]) -> pa.Table:
        return _read(groups[place], columns)

    def row(index: int, columns: tuple[str, ...]) -> Row:
        place = bisect_right(starts, index) - 1
        (values,) = table(place, columns).slice(index - starts[place], 1).to_pylist()
        return Row(values, index + 1, where(index))

    def where(index: int) -> str:
        group = groups[bisect_right(starts, index) - 1]
        return f"{group.path}: row {index - group.first + group.first_in_file + 1}"

    def read(index: int) -> Sample:
        folder = groups[bisect_right(starts, index) - 1].path.parent
        return to_sample(config, row(index, names), folder=folder)

    def read_text(index: int) -> Sample:
        values = {**row(index, texts).values, **dict.fromkeys(images)}
        return to_sample(config, Row(values, index + 1, where(index)), folder=base)

    return Rows(
        _ids(config, groups, count, names), read, read_text, where, source=str(base / config.path)
    )


def _ids(
    config: ParquetConfig, groups: Sequence[_Group], count: int, names: Sequence[str]
) -> list[str]:
    key = config.id_key or "id"
    if key not in names and config.id_key is None:
        return [str(index + 1) for index in range(count)]
    return [
        row_id(
            config,
            Row({key: value.as_py()}, 0, f"{group.path}: row {group.first_in_file + number}"),
        )
        for group in groups
        for number, value in enumerate(_read(group, (key,)).column(key), 1)
    ]


def _files(text: str, base: Path) -> list[Path]:
    if not find_folder(base / text):
        return [resolve_file(text, base, "dataset.path")]
    folder = resolve_folder(text, base, "dataset.path")
    found = sorted(folder.glob("*.parquet"))
    if not found:
        raise VlmkitError(f"dataset.path: no .parquet files in {folder}")
    return found


def _groups(paths: Sequence[Path]) -> tuple[list[_Group], int]:
    groups: list[_Group] = []
    first = 0
    for path in paths:
        with _open(path) as file:
            metadata = file.metadata
            sizes = [_check_group(path, metadata, i) for i in range(metadata.num_row_groups)]
        check_count(first + sum(sizes), str(path))
        first_in_file = 0
        for number, size in enumerate(sizes):
            if size:
                groups.append(_Group(path, number, first, first_in_file))
            first += size
            first_in_file += size
    if not groups:
        raise VlmkitError(f"{paths[0]}: no samples in it")
    return groups, first


def _columns(config: ParquetConfig, path: Path) -> tuple[str, ...]:
    with _open(path) as file:
        names = tuple(file.schema_arrow.names)
    check_columns(len(names), str(path))
    if config.question_key not in names:
        known, near = listed(names), nearest(config.question_key, names)
        raise VlmkitError(f"{path}: no column {config.question_key!r}{near} (it has: {known})")
    return names


def _read(group: _Group, columns: Sequence[str]) -> pa.Table:
    with _open(group.path) as file:
        check_pages(group.path, file.metadata, group.number, columns, max_bytes=MAX_GROUP_BYTES)
        packed = _dictionaries(file.metadata, group.number)
    with _open(group.path, packed) as file:
        names = dict.fromkeys(file.schema_arrow.names)
        for name in columns:
            if name not in names:
                known = listed(names)
                raise VlmkitError(f"{group.path}: no column {name!r} (it has: {known})")
        try:
            return file.read_row_group(group.number, columns=list(columns))
        except (OSError, ValueError, MemoryError) as error:
            raise VlmkitError(f"{group.path}: can't be read ({_one_line(error)})") from error


def _check_group(path: Path, metadata: Any, number: int) -> int:
    """The number of rows of a group, which fits in memory."""
    group = metadata.row_group(number)
    num_bytes = 0
    for place in range(group.num_columns):
        column, kind = group.column(place), metadata.schema.column(place)
        width = kind.length if kind.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTH
        num_bytes += max(column.num_values * max(width, _WIDTH), column.total_uncompressed_size)
    if num_bytes > MAX_GROUP_BYTES:
        raise VlmkitError(
            f"{path}: row group {number} takes {num_bytes / 2**30:,.1f} GiB, and at most "
            f"{MAX_GROUP_BYTES / 2**30:g} are read at once; write it in smaller row groups"
        )
    return int(group.num_rows)


def _dictionaries(metadata: Any, number: int) -> list[str]:
    """The columns of texts that are written once each: they stay so, however often they stand."""
    group = metadata.row_group(number)
    columns = map(group.column, range(group.num_columns))
    return [
        column.path_in_schema
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page
    ]


def _open(path: Path, packed: Sequence[str] = ()) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise VlmkitError(f"dataset: kind parquet {MISSING}") from error
    try:
        return ParquetFile(path, read_dictionary=list(packed))
    except (OSError, ValueError) as error:
        raise VlmkitError(f"{path}: not a Parquet file ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""One JSON object a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import Field

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data.base import Rows, check_count
from vlmkit.experiment.data.columns import ColumnsConfig, Row, check_columns, row_id, to_sample
from vlmkit.experiment.data.files import data_lines, open_data, resolve_file
from vlmkit.files import check_keys

MAX_VALUES = 1_000_000
"""Lists and objects of a row, which take thirty times the memory of their text."""


class JsonlConfig(ColumnsConfig):
    """A file with one JSON object a line; images are paths relative to it, URLs or data: URIs."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(min_length=1, description="the file, relative to the file that names it")


def jsonl(config: JsonlConfig, base: Path) -> Rows:
    """Read the ids of a JSONL file and where each line begins.

    Args:
        config: what to read.
        base: the folder that the path is relative to.

    Raises:
        VlmkitError: the file can't be read, or a line is no JSON object.
    """
    path = resolve_file(config.path, base, "dataset.path")
    ids: list[str] = []
    starts: list[int] = []
    numbers: list[int] = []
    with open_data(path) as file:
        start = 0
        for number, line in enumerate(data_lines(file, path), 1):
            if line.strip():
                row = _row(line, path, number)
                ids.append(row_id(config, row))
                starts.append(start)
                numbers.append(number)
                check_count(len(ids), row.where)
            start += len(line)

    def read(index: int) -> Any:
        with open_data(path) as file:
            file.seek(starts[index], os.SEEK_SET)
            line = next(data_lines(file, path), b"")
        sample = to_sample(config, _row(line, path, numbers[index]), folder=path.parent)
        if sample.id != ids[index]:
            raise VlmkitError(f"{sample.where}: changed while it is in use")
        return sample

    def where(index: int) -> str:
        return f"{path}:{numbers[index]}"

    return Rows(ids, read, read, where, source=str(path))


def _row(line: bytes, path: Path, number: int) -> Row:
    where = f"{path}:{number}"
    if line.count(b"[") + line.count(b"{") > MAX_VALUES:
        raise VlmkitError(f"{where}: more than {MAX_VALUES:,} lists and objects in one row")
    try:
        check_keys(line)
        values = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise VlmkitError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise VlmkitError(f'{where}: must be a JSON object, as {{"question": …}}')
    check_columns(len(values), where)
    return Row(values, number, where)

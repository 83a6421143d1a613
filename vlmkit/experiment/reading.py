"""Reading a run's records line by line, so that a million of them need no memory of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.records import Count, Record, Scored, Seed
from vlmkit.files import check_keys, each_line, open_file

WORKERS = "workers"
"""The folder beside a run's records in which each worker has a file of its own."""

MAX_RECORD_BYTES = 32 * 2**20
"""Of one record: ten times what 4,096 tokens with twenty alternatives each take."""


_BROKEN = (ValueError, RecursionError)


class ScoreLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record without its text and tokens: what a comparison needs."""

    arm: str
    sample: str
    seed: Seed
    error: str | None = None
    generation_tokens: Count = 0
    answered: bool = True
    prompt_s: float = 0.0
    generation_s: float = 0.0
    alone: bool = False
    cache_bytes: Count = 0
    scores: dict[str, Scored] = {}


_Line = TypeVar("_Line", ScoreLine, Record)
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def record_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return a run's file of records, and those of its workers.

    Args:
        path: ``records.jsonl`` of the run directory.
    """
    first = Path(path)
    return [first, *sorted((first.parent / WORKERS).glob("*.jsonl"))]


def read_scores(path: str | os.PathLike[str]) -> Iterator[ScoreLine]:
    """Yield what a comparison needs of each record of a JSONL file, and of its workers' files.

    A last line that was cut off while it was written is left out. A unit that two workers ran,
    which happens where a lease expired, is yielded once.

    Raises:
        VlmkitError: the file cannot be read, or a line is no record.
    """
    return _read_all(path, msgspec.json.Decoder(ScoreLine))


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield each whole record of a JSONL file; as `read_scores` otherwise."""
    return _read_all(path, msgspec.json.Decoder(Record))


def read_lines(path: str | os.PathLike[str], kind: type[_Struct]) -> Iterator[_Struct]:
    """Yield each whole line of one JSONL file; one that was cut off at the end is left out.

    Raises:
        VlmkitError: the file cannot be read, or a line is not of that kind.
    """
    return _read(path, msgspec.json.Decoder(kind))


def _read_all(
    path: str | os.PathLike[str], decoder: msgspec.json.Decoder[_Line]
) -> Iterator[_Line]:
    files = record_files(path)
    if len(files) == 1:
        yield from _read(path, decoder)
        return
    seen: set[int] = set()  # hashes take a third of the memory
    for file in files:
        for line in _read(file, decoder):
            unit = hash((line.arm, line.sample, line.seed))
            if unit not in seen:
                seen.add(unit)
                yield line


def _read(
    path: str | os.PathLike[str], decoder: msgspec.json.Decoder[_Struct]
) -> Iterator[_Struct]:
    decode = decoder.decode
    number = 0
    try:
        with open_file(path) as file:
            for number, line in enumerate(each_line(file, MAX_RECORD_BYTES), 1):  # noqa: B007
                if line.endswith(b"\n"):
                    check_keys(line)
                    yield decode(line)
                else:
                    yield from _last(line, decoder)
    except _BROKEN as error:
        raise VlmkitError(f"{os.fspath(path)}:{number}: no record of a run: {error}") from None
    except OSError as error:
        raise VlmkitError(f"{os.fspath(path)}: {error.strerror}") from None


def _last(line: bytes, decoder: msgspec.json.Decoder[_Struct]) -> Iterator[_Struct]:
    try:
        yield decoder.decode(line)
    except _BROKEN:
        return  # it was being written when its runner was stopped

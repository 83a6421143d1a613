"""Reading a run's records line by line, so that a million of them need no memory of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.records import Record, Scored

_BUFFER_BYTES = 1 << 20
_Line = TypeVar("_Line")


class ScoreLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record without its text and tokens: what a comparison needs."""

    arm: str
    sample: str
    seed: int
    error: str | None = None
    generation_tokens: int = 0
    prompt_s: float = 0.0
    generation_s: float = 0.0
    scores: dict[str, Scored] = {}


def read_scores(path: str | os.PathLike[str]) -> Iterator[ScoreLine]:
    """Yield what a comparison needs of each record of a JSONL file.

    A last line that was cut off while it was written is left out.

    Raises:
        VlmkitError: the file cannot be read, or a line is no record.
    """
    return _read(path, msgspec.json.Decoder(ScoreLine))


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield each whole record of a JSONL file; as `read_scores` otherwise."""
    return _read(path, msgspec.json.Decoder(Record))


def _read(path: str | os.PathLike[str], decoder: msgspec.json.Decoder[_Line]) -> Iterator[_Line]:
    decode = decoder.decode
    number = 0
    try:
        with open(path, "rb", buffering=_BUFFER_BYTES) as file:
            for number, line in enumerate(file, 1):  # noqa: B007
                if line.endswith(b"\n"):
                    yield decode(line)
                else:
                    yield from _last(line, decoder)
    except msgspec.DecodeError as error:
        raise VlmkitError(f"{os.fspath(path)}:{number}: no record of a run: {error}") from None
    except OSError as error:
        raise VlmkitError(f"{os.fspath(path)}: {error.strerror}") from None


def _last(line: bytes, decoder: msgspec.json.Decoder[_Line]) -> Iterator[_Line]:
    try:
        yield decoder.decode(line)
    except msgspec.DecodeError:
        return  # it was being written when its runner was stopped

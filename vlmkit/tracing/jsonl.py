"""Traces as JSONL: one record per line, each written out at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.files import check_keys, read_file, stream_file
from vlmkit.tracing.records import FORMAT, Record, Trace, TraceEnd, TraceHeader, TraceStep

MAX_TRACE_BYTES = 128 * 2**20
"""Of a saved trace, which is held in memory: some 25,000 steps of a long chain."""

_RECORDS: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


_BROKEN = (ValueError, RecursionError)


class _Mark(msgspec.Struct):
    """What every header of every format has."""

    record: str
    format: int


@contextmanager
def open_trace(path: str | os.PathLike[str]) -> Iterator[Callable[[Record], None]]:
    """Write a trace: gives a function that appends one record and hands it to the system at once.

    An old file stays until the first record is written.

    Raises:
        VlmkitError: the file cannot be opened or written, as on a full disk.

    Example:
        >>> import tempfile
        >>> header = TraceHeader(model="shapes", prompt="Hi", seed=0, top_n=5, version="0.1.0")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open_trace(folder + "/run.jsonl") as write:
        ...         write(header)
        ...     read_trace(folder + "/run.jsonl").header == header
        True
    """
    with stream_file(path) as append:
        yield lambda record: append(msgspec.json.encode(record) + b"\n")


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace back. A last line that was cut off is reported, and the rest is read.

    Returns:
        The trace; ``damage`` says what is missing, ``end`` is None for an interrupted run.

    Raises:
        VlmkitError: there is no such file, it is no trace, it has another format, or a line in it
            is broken.
    """
    try:
        content = read_file(path, MAX_TRACE_BYTES)
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None
    *lines, rest = content.split(b"\n")
    header = _read_header(path, lines[0] if lines else rest, is_whole=bool(lines))
    steps: list[TraceStep] = []
    end: TraceEnd | None = None
    for number, line in enumerate(lines[1:], 2):
        record = _read_line(path, number, line)
        if end is not None or isinstance(record, TraceHeader):
            raise VlmkitError(f"{path}:{number}: a trace holds one run, and it has ended here")
        if isinstance(record, TraceEnd):
            end = record
        elif record.position == len(steps):
            steps.append(record)
        else:
            raise VlmkitError(f"{path}:{number}: step {len(steps)} is missing")
    damage = None
    if rest and lines:
        damage = (
            f"{path}:{len(lines) + 1}: the last line was cut off after {len(rest)} bytes; "
            f"the {len(steps)} steps before it are whole"
        )
    return Trace(header=header, steps=steps, end=end, damage=damage)


def _read_header(path: str | os.PathLike[str], line: bytes, *, is_whole: bool) -> TraceHeader:
    try:
        mark = msgspec.json.decode(line, type=_Mark)
    except _BROKEN:
        mark = _Mark("", 0)
    if mark.record != "header":
        cause = "the file is empty"
        if line:
            cause = "its first line is no header" if is_whole else "its only line was cut off"
        raise VlmkitError(
            f"{path}: not a trace: {cause}; 'vlmkit trace --out FILE.jsonl' writes one"
        )
    if mark.format != FORMAT:
        raise VlmkitError(f"{path}: trace format {mark.format}; this version reads {FORMAT}")
    header = _read_line(path, 1, line)
    assert isinstance(header, TraceHeader)
    return header


def _read_line(path: str | os.PathLike[str], number: int, line: bytes) -> Record:
    try:
        check_keys(line)
        return _RECORDS.decode(line)
    except _BROKEN as error:
        raise VlmkitError(f"{path}:{number}: not a trace record: {error}") from None

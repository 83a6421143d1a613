"""A file of records, one line each, that one process appends to."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.records import Record
from vlmkit.files import append_file

_SYNC_S = 1.0  # what a machine that loses power may lose; forcing takes milliseconds


class Appends(Protocol):
    """Where records go."""

    def append(self, record: Record) -> None:
        """Add one record; raises VlmkitError where it cannot be written."""


class RecordFile:
    """Appends after the last whole line of a file, which is made if it is not there.

    Args:
        path: the file. A last line that was cut off is removed.

    Raises:
        VlmkitError: it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "records.jsonl")
        >>> file = RecordFile(path)
        >>> file.append(Record(arm="greedy", sample="7", seed=0))
        >>> file.close()
        >>> path.read_text()
        '{"arm":"greedy","sample":"7","seed":0}\\n'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open_after_last_line(path)
        self._size = os.fstat(self._file).st_size
        self._synced = time.monotonic()

    def append(self, record: msgspec.Struct) -> None:
        """Add one record.

        Raises:
            VlmkitError: it cannot be written, as on a full disk; the file ends as it did before.
        """
        line = msgspec.json.encode(record) + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            self._size += len(line)
            if time.monotonic() - self._synced >= _SYNC_S:
                self.sync()
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise VlmkitError(
                f"{self.path}: cannot be written: {error.strerror}; all records up to "
                "here are kept: make room, and give the same command again to go on"
            ) from error

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Force everything to the disk and close the file."""
        try:
            self.sync()
        finally:
            os.close(self._file)


def _open_after_last_line(path: Path) -> int:
    try:
        file = append_file(path)
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
    end = os.fstat(file).st_size
    block = 1 << 16
    whole = end
    while whole > 0:
        start = max(whole - block, 0)
        found = os.pread(file, whole - start, start).rfind(b"\n")
        if found >= 0:
            whole = start + found + 1
            break
        whole = start
    if whole < end:
        os.ftruncate(file, whole)
    return file

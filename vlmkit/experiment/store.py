"""A run directory: a manifest and one line per record, so that no response is ever lost.

A record is one line of ``records.jsonl``, handed to the operating system in one piece when its
response is whole, and forced to the disk at least every quarter of a second. So a killed process
loses nothing that was written, and at worst the last line of a machine that lost power is cut off;
it is removed when the directory is opened again. One process writes at a time.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.manifest import FILE, Manifest, check_same, read_manifest, write_manifest
from vlmkit.experiment.records import Record

RECORDS = "records.jsonl"
LOCK = "lock"
_SYNC_S = 0.25
_MAX_KEPT = 10_000  # old runs beside a new one


class Store:
    """A run directory that this process alone writes to; a context manager that closes it.

    Args:
        folder: the run directory; made if it is not there.
        manifest: of this run. One that is there already must be of the same run.
        force_new: keep a run of something else beside it, as ``NAME.1``, and begin anew.

    Raises:
        VlmkitError: not a run directory, another run's, a newer version's, one that another process
            writes to, or one that cannot be written.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, force_new: bool = False) -> None:
        self.folder = folder
        self._lock = _claim(folder)
        try:
            if force_new and (folder / FILE).exists():
                self._lock = _set_aside(folder, self._lock)
            if (folder / FILE).exists():
                old = read_manifest(folder)
                check_same(old, manifest, folder)
                manifest = msgspec.structs.replace(
                    manifest, created=old.created, command=old.command
                )
            write_manifest(folder, manifest)
            self._file = _open_records(folder / RECORDS)
        except BaseException:
            os.close(self._lock)
            raise
        self._size = os.fstat(self._file).st_size
        self._synced = time.monotonic()

    def append(self, record: Record) -> None:
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
                f"{self.folder / RECORDS}: cannot be written: {error.strerror}; all records up to "
                "here are kept: make room, and give the same command again to go on"
            ) from error

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Force everything to the disk and let others write."""
        try:
            self.sync()
        finally:
            os.close(self._file)
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def replace_records(folder: Path, records: Iterator[Record]) -> int:
    """Write all records of a run anew; they appear whole or not at all.

    Returns:
        How many there are.
    """
    path, number = folder / RECORDS, 0
    partial = path.with_name(f".{RECORDS}.{os.getpid()}.part")
    try:
        try:
            with partial.open("wb") as file:
                for record in records:
                    file.write(msgspec.json.encode(record) + b"\n")
                    number += 1
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
    return number


def claim(folder: Path) -> int:
    """Lock an existing run directory; close the file descriptor to release it.

    Raises:
        VlmkitError: another process writes to it, or it cannot be written.
    """
    read_manifest(folder)
    return _claim(folder)


def _claim(folder: Path) -> int:
    try:
        if folder.is_dir() and not (folder / FILE).exists():
            others = [entry.name for entry in folder.iterdir() if not _is_ours(entry.name)]
            if others:
                raise VlmkitError(
                    f"{folder}: holds {others[0]!r} and is no run directory; give a new or an "
                    "empty folder with --out"
                )
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise VlmkitError(
            f"{folder}: cannot be written: {error.strerror}; choose another folder with --out"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise VlmkitError(
            f"{folder}: another process (pid {owner}) is writing to it; wait until it is done, or "
            "choose another folder with --out"
        ) from None
    os.truncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _is_ours(name: str) -> bool:
    """What a process that was killed at once may leave in a directory without a manifest."""
    return name == LOCK or (name.startswith(f".{FILE}.") and name.endswith(".part"))


def _set_aside(folder: Path, lock: int) -> int:
    """Rename a run directory, and claim a new one in its place."""
    numbered = (folder.with_name(f"{folder.name}.{number}") for number in range(1, _MAX_KEPT))
    free = next(path for path in numbered if not path.exists())
    try:
        folder.rename(free)
    except OSError as error:
        raise VlmkitError(f"{folder}: cannot be renamed: {error.strerror}") from None
    fresh = _claim(folder)
    os.close(lock)
    return fresh


def _open_records(path: Path) -> int:
    """Open for appending, after the last whole line."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
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

"""A run directory: a manifest and one line per record, so that no response is ever lost.

A record is one line of ``records.jsonl``, handed to the operating system in one piece when its
response is whole, and forced to the disk at least every quarter of a second. So a killed process
loses nothing that was written, and at worst the last line of a machine that lost power is cut off;
it is removed when the directory is opened again. One process writes at a time, or several workers
do, each to a file of its own in ``workers/``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.manifest import FILE, Manifest, check_same, read_manifest, write_manifest
from vlmkit.experiment.reading import record_files
from vlmkit.experiment.recordfile import RecordFile
from vlmkit.experiment.records import Record
from vlmkit.files import append_file, whole_file

RECORDS = "records.jsonl"
LOCK = "lock"
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
            self._file = RecordFile(folder / RECORDS)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, record: Record) -> None:
        """Add one record.

        Raises:
            VlmkitError: it cannot be written, as on a full disk; the file ends as it did before.
        """
        self._file.append(record)

    def sync(self) -> None:
        """Force what was written to the disk."""
        self._file.sync()

    def close(self) -> None:
        """Force everything to the disk and let others write."""
        try:
            self._file.close()
        finally:
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
    """Write all records of a run anew into one file; they appear whole or not at all.

    Returns:
        How many there are.
    """
    path, number = folder / RECORDS, 0
    with whole_file(path) as partial, partial.open("wb") as file:
        for record in records:
            file.write(msgspec.json.encode(record) + b"\n")
            number += 1
        file.flush()
        os.fsync(file.fileno())
    try:
        for other in record_files(path)[1:]:
            other.unlink()
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
    return number


def run_files(folder: Path) -> list[Path]:
    """Return the files of a run directory, and those of its data set but for images in it.

    Nothing that is made of a run may be written over them.

    Raises:
        VlmkitError: no run directory.
    """
    manifest = read_manifest(folder)
    named = [manifest.dataset.get(key) for key in ("path", "answers")]
    data = [Path(manifest.folder, os.path.expanduser(one)) for one in named if isinstance(one, str)]
    return [folder / FILE, folder / LOCK, *record_files(folder / RECORDS), *data]


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
        handle = append_file(folder / LOCK)
    except (OSError, ValueError) as error:
        if isinstance(error, VlmkitError):
            raise
        why = error.strerror if isinstance(error, OSError) else "is no name that a folder can have"
        raise VlmkitError(
            f"{folder}: cannot be written: {why}; choose another folder with --out"
        ) from None
    lock(folder, handle, fcntl.LOCK_EX, f"pid {os.getpid()}")
    return handle


def lock(folder: Path, handle: int, kind: int, owner: str) -> None:
    """Lock a run directory by its open lock file, exclusively or with others of the same kind.

    Args:
        folder: the run directory.
        handle: the file, which is closed where it cannot be locked.
        kind: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
        owner: what others are told who comes in their way.

    Raises:
        VlmkitError: somebody else writes to the directory.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        other = os.pread(handle, 40, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise VlmkitError(
            f"{folder}: another process ({other}) is writing to it; wait until it is done, or "
            "choose another folder with --out"
        ) from None
    os.truncate(handle, 0)
    os.pwrite(handle, f"{owner}\n".encode(), 0)


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

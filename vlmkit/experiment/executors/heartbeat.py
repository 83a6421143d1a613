"""Which workers are alive, found out without comparing clocks.

A worker counts up in a file of its own. Another holds it for dead when it has looked again and
again for a whole lease, by a monotonic clock of its own, and found the same count. A clock that is
set, or that differs from machine to machine, decides nothing; a pause of the one that looks, or of
both, counts for two looks at most.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vlmkit.errors import VlmkitError
from vlmkit.files import read_file

LEASE_S = 60.0
"""How long others wait for a worker that says nothing."""

STOP = "stop"
"""The name of a file beside theirs that asks all workers to stop, for as long as it is there."""

_MAX_BYTES = 1024  # of a worker's file, which is one short line
_LOOKS = 8  # in one lease
_LONGEST_S = 5.0  # between two looks


class Heartbeat:
    """Tells others that this worker lives, and watches some of them; a context manager.

    Args:
        folder: where the workers' files are.
        worker: the name of this one.
        lease_s: others hold this worker for dead after so many seconds of silence, > 0.
        on_stop: called, in a thread of its own, when workers are asked to stop, and when this one
            cannot say any more that it lives.
    """

    def __init__(
        self, folder: Path, worker: str, *, lease_s: float, on_stop: Callable[[], None]
    ) -> None:
        self._folder, self._worker, self._lease_s = folder, worker, lease_s
        self._on_stop = on_stop
        self.every_s = min(lease_s / _LOOKS, _LONGEST_S)
        self._count, self._looked = 0, time.monotonic()
        self._silent: dict[str, tuple[bytes, float]] = {}  # the count, seconds of it unchanged
        self._lock, self._ended = threading.Lock(), threading.Event()
        self.failure: VlmkitError | None = None
        self._thread = threading.Thread(target=self._run, name="vlmkit-heartbeat", daemon=True)
        self._file = -1

    def __enter__(self) -> Self:
        path = self._path(self._worker)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            self._beat()
        except OSError as error:
            raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
        self._heed_stop()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._file)
        self._path(self._worker).unlink(missing_ok=True)

    def is_dead(self, worker: str) -> bool:
        """Tell whether a worker's lease has expired; from the first question on it is watched."""
        now = _read(self._path(worker))
        if now is None:
            return True  # it ended, and took its file with it
        with self._lock:
            before, silent = self._silent.get(worker, (b"", 0.0))
            if now != before:
                self._silent[worker] = now, 0.0
                return False
        return silent >= self._lease_of(now)

    def _run(self) -> None:
        while not self._ended.wait(self.every_s):
            try:
                self._beat()
                self._look()
            except OSError as error:
                self.failure = VlmkitError(f"{self._folder}: {error.strerror or error}")
                self._on_stop()
                return
            self._heed_stop()

    def _heed_stop(self) -> None:
        if (self._folder / STOP).exists():
            self._on_stop()

    def _beat(self) -> None:
        """Write the lease and the count, always as long, so that a full disk is no matter."""
        self._count += 1
        os.pwrite(self._file, f"{self._lease_s:.6f} {self._count:012d}\n".encode(), 0)

    def _look(self) -> None:
        passed = min(time.monotonic() - self._looked, 2 * self.every_s)
        self._looked = time.monotonic()
        with self._lock:
            for worker, (before, silent) in self._silent.items():
                now = _read(self._path(worker)) or before
                self._silent[worker] = now, silent + passed if now == before else 0.0

    def _lease_of(self, content: bytes) -> float:
        """A worker's own lease, which it writes beside its count."""
        try:
            return float(content.split()[0])
        except (IndexError, ValueError):
            return self._lease_s  # it was stopped before it had written

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.beat"


def _read(path: Path) -> bytes | None:
    try:
        return read_file(path, _MAX_BYTES)
    except FileNotFoundError:
        return None

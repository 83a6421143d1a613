"""Claims on shares of a run, by which several workers divide it without asking anyone.

The history of a share is a chain of files, ``SHARE.1``, ``SHARE.2``, …, each made by
``open(..., O_CREAT | O_EXCL)``, which one process alone can do, over NFS too. The last file names
the owner, or nobody. To take a share, to take it over from a dead worker and to give it back are
all the same step, the next file of the chain; whoever makes it has won. No file is ever changed
by another than its maker, or removed while workers are about.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from vlmkit.errors import VlmkitError
from vlmkit.files import read_file

FOLDER = "claims"
_FREE = "nobody"
_MAX_BYTES = 1024  # of a claim, which is a name


class Claims:
    """The shares that one worker holds.

    Args:
        folder: where the chains are; made if it is not there.
        worker: its name, unlike any other's.
        is_dead: tells of another worker whether its lease has expired.
        lease_s: seconds after which a file that names nobody yet is not waited for: its maker was
            stopped between making and writing it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> a, b = (Claims(folder, name, is_dead=lambda name: False, lease_s=60) for name in "ab")
        >>> a.take("0-4"), b.take("0-4"), b.take("4-8")
        (True, False, True)
        >>> a.release("0-4")
        >>> b.take("0-4")
        True
    """

    def __init__(
        self, folder: Path, worker: str, *, is_dead: Callable[[str], bool], lease_s: float
    ) -> None:
        self._folder, self._worker, self._is_dead = folder, worker, is_dead
        self._lease_s = lease_s
        self._last: dict[str, int] = {}  # by share: the last file of its chain that was seen
        self._unnamed: dict[str, float] = {}  # by path: when a file was first seen without a name
        self.held: set[str] = set()
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from None

    def take(self, share: str) -> bool:
        """Take a share that nobody holds, or one whose owner is dead; tell whether it worked."""
        if share in self.held and self.holds(share):
            return False  # at work on it already
        number, owner = self._find_last(share)
        if owner != _FREE and not self._is_gone(share, number, owner):
            return False
        if not self._append(share, number + 1, self._worker):
            return False
        self.held.add(share)
        return True

    def holds(self, share: str) -> bool:
        """Tell whether a share is still this worker's: another may have held it for dead."""
        number, owner = self._find_last(share)
        if owner != self._worker or number == 0:
            self.held.discard(share)
        return share in self.held

    def forget(self, share: str) -> None:
        """Let go of a share of which nothing is left."""
        self.held.discard(share)

    def release(self, share: str) -> None:
        """Give a share back, so that others need not wait for a lease to expire."""
        if self.holds(share):
            self._append(share, self._last[share] + 1, _FREE)
            self.held.discard(share)

    def _find_last(self, share: str) -> tuple[int, str]:
        """The number and the owner of a chain's last file; 0 and nobody before its first."""
        number = self._last.get(share, 0)
        while (self._folder / f"{share}.{number + 1}").exists():
            number += 1
        self._last[share] = number
        if number == 0:
            return 0, _FREE
        path = self._folder / f"{share}.{number}"
        try:
            return number, read_file(path, _MAX_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None

    def _is_gone(self, share: str, number: int, owner: str) -> bool:
        if owner:
            return owner == self._worker or self._is_dead(owner)
        since = self._unnamed.setdefault(f"{share}.{number}", time.monotonic())
        return time.monotonic() - since > self._lease_s

    def _append(self, share: str, number: int, owner: str) -> bool:
        path = self._folder / f"{share}.{number}"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            os.write(handle, owner.encode())
        except OSError as error:
            raise _unwritable(path, error) from None
        finally:
            os.close(handle)
        return True


def _unwritable(path: Path, error: OSError) -> VlmkitError:
    return VlmkitError(f"{path}: cannot be written: {error.strerror}; all records are kept")

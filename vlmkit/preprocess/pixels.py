"""Images that were processed before, by what they show: in memory, and in a folder if wished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from vlmkit.contracts.inputs import ImageGrid, Media
from vlmkit.errors import VlmkitError
from vlmkit.files import make_folder, read_file, write_file
from vlmkit.processors.patch_limits import MAX_NUMBERS

DEFAULT_BYTES = 1 << 28
_SUFFIX = ".pixels"
_HEAD = 256  # bytes of a file before its numbers: JSON, filled up with spaces


class Pixels(NamedTuple):
    """An image as its encoder takes it."""

    patches: NDArray[np.float32]  # [N, channels * time * size * size]
    grid: ImageGrid
    digest: bytes  # of what they are, as in :class:`vlmkit.contracts.inputs.Media`

    @classmethod
    def of(cls, patches: NDArray[np.float32], grid: ImageGrid) -> Pixels:
        """Make a value of its parts, with their digest."""
        return cls(patches, grid, Media.of("image", patches, grid, (0, 0)).digest)


class PixelCache:
    """Processed images with limits in bytes; the least recently used go first.

    An entry belongs to an image's pixels, the checkpoint's image rules and ``resize_shape``, so
    what comes out is bit for bit what processing gives. Several threads, and through the folder
    several processes, may share one. A damaged file counts as none.

    Args:
        max_bytes: the limit in memory; 0 = nothing is kept there.
        folder: where entries are kept too; made if need be. None = nowhere.
        max_disk_bytes: the limit of the files in ``folder``; None = no limit.

    Raises:
        VlmkitError: a limit that is no count, or a folder that cannot be made.

    Example:
        >>> import numpy as np
        >>> cache, grid = PixelCache(max_bytes=100), ImageGrid(1, 2, 2)
        >>> for name in "ab":
        ...     cache.put(name, Pixels.of(np.zeros((4, 4), np.float32), grid))
        >>> cache.find("a") is None, cache.find("b").grid == grid, cache.num_bytes
        (True, True, 64)
    """

    def __init__(
        self,
        max_bytes: int = DEFAULT_BYTES,
        *,
        folder: str | Path | None = None,
        max_disk_bytes: int | None = None,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("max_disk_bytes", max_disk_bytes)):
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not is_count and (name == "max_bytes" or value is not None):
                raise VlmkitError(f"{name} is {value!r}; it must be 0 or more")
        self.max_bytes, self.max_disk_bytes = max_bytes, max_disk_bytes
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            make_folder(self.folder)
        self.num_bytes = 0
        self._held: OrderedDict[str, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: str) -> Pixels | None:
        """Return what is held under a key of :func:`pixels_key`."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        found = None if self.folder is None else _read(self.folder / f"{key}{_SUFFIX}")
        if found is not None:
            self._hold(key, found)
        return found

    def put(self, key: str, pixels: Pixels) -> None:
        """Add an image; what is over a limit goes.

        Raises:
            VlmkitError: the folder cannot be written to.
        """
        self._hold(key, pixels)
        if self.folder is None:
            return
        size = pixels.patches.nbytes + _HEAD
        if self.max_disk_bytes is None or size <= self.max_disk_bytes:
            _write(self.folder / f"{key}{_SUFFIX}", pixels)
            if self.max_disk_bytes is not None:
                _shrink(self.folder, self.max_disk_bytes)

    def clear(self) -> None:
        """Remove everything from memory; files stay."""
        with self._lock:
            self._held.clear()
            self.num_bytes = 0

    def _hold(self, key: str, pixels: Pixels) -> None:
        if pixels.patches.nbytes > self.max_bytes:
            return
        pixels.patches.flags.writeable = False  # it is handed out again
        with self._lock:
            if key not in self._held:
                self.num_bytes += pixels.patches.nbytes
            self._held[key] = pixels
            while self.num_bytes > self.max_bytes:
                _, oldest = self._held.popitem(last=False)
                self.num_bytes -= oldest.patches.nbytes


def pixels_key(image: Image.Image, rules: str, resize_shape: tuple[int, int] | None) -> str:
    """Return a name for what an image becomes.

    Args:
        image: upright, as it is before it is resized.
        rules: the processor's ``image_rules``.
        resize_shape: (height, width) that it is brought to first.
    """
    head = repr((image.mode, image.size, rules, resize_shape, PIL.__version__))
    digest = hashlib.blake2b(head.encode(), digest_size=20)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _write(path: Path, pixels: Pixels) -> None:
    head = {"shape": pixels.patches.shape, "grid": pixels.grid, "digest": pixels.digest.hex()}
    content = np.ascontiguousarray(pixels.patches, "<f4").tobytes()
    write_file(path, json.dumps(head).encode().ljust(_HEAD) + content)


def _read(path: Path) -> Pixels | None:
    try:
        content = read_file(path, 4 * MAX_NUMBERS + _HEAD)
        head = json.loads(content[:_HEAD])
        patches = np.frombuffer(content, "<f4", offset=_HEAD).reshape(head["shape"])
        found = Pixels.of(patches.astype(np.float32, copy=False), ImageGrid(*head["grid"]))
        if found.digest.hex() != head["digest"]:
            return None
        os.utime(path)  # used just now
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found


def _shrink(folder: Path, max_bytes: int) -> None:
    """Remove the files that were used longest ago, until the others fit."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # another process removed it
                if entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, entry.path, status.st_size))
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        if total <= max_bytes:
            return
        Path(path).unlink(missing_ok=True)
        total -= size

"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from vlmkit.errors import VlmkitError


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one piece: what stood there before stays until the new content is complete.

    Raises:
        VlmkitError: it cannot be written, as on a full disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(folder + "/a.txt", b"all of it")
        ...     Path(folder, "a.txt").read_bytes(), os.listdir(folder)
        (b'all of it', ['a.txt'])
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None

"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vlmkit.errors import VlmkitError


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a new file beside ``path``, which takes its place when the block ends well.

    Raises:
        VlmkitError: the file cannot be written; what stood at ``path`` is as before.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> with whole_file(Path(folder, "a.txt")) as file:
        ...     _ = file.write_text("text")
        >>> os.listdir(folder)
        ['a.txt']
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise VlmkitError(f"{os.fspath(path)}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

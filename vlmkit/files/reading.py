"""Reading: a regular file, and no more of it than a limit.

Everything that a file from elsewhere can name goes through here. A device has no end, a pipe may
never have a beginning, and what is too large fills the memory; so each is refused before it is
read. Errors are ``OSError``, with a ``strerror`` that can stand in a message.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

Name = str | os.PathLike[str]

_KINDS = (
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
    (stat.S_ISFIFO, "is a pipe, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
)
# A pipe that nobody writes to, and a terminal, would keep the opening of them waiting.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def check_regular(status: os.stat_result) -> None:
    """Refuse what is no regular file.

    Raises:
        OSError: a folder, a device, a pipe, a socket.
    """
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for is_kind, problem in _KINDS:
        if is_kind(status.st_mode):
            raise OSError(errno.EINVAL, problem)


def status_of(path: Name) -> os.stat_result:
    """As ``os.stat``, also of what can be the name of no file.

    Raises:
        OSError: there is none, or it cannot be reached.
    """
    try:
        return os.stat(path)
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "is no name that a file can have") from error


def find_file(path: Name) -> bool:
    """Whether there is a regular file; False also for names that no file can have.

    Example:
        >>> find_file("/dev/null"), find_file("a" * 300), find_file("a\\0")
        (False, False, False)
    """
    try:
        return stat.S_ISREG(status_of(path).st_mode)
    except OSError:
        return False


def find_folder(path: Name) -> bool:
    """Whether there is a folder; False also for names that none can have.

    Example:
        >>> find_folder("/dev"), find_folder("a" * 300), find_folder("a\\0")
        (True, False, False)
    """
    try:
        return stat.S_ISDIR(status_of(path).st_mode)
    except OSError:
        return False


def open_file(path: Name) -> BinaryIO:
    """Open a regular file for reading; never waits for anybody.

    Raises:
        OSError: there is none, it cannot be opened, or it is a folder, a device, a pipe, a socket.

    Example:
        >>> open_file("/dev/zero")
        Traceback (most recent call last):
        OSError: [Errno 22] is a device, not a file
    """
    check_regular(status_of(path))  # first: to open some devices has effects
    handle = os.open(path, _FLAGS)
    try:
        check_regular(os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: Name, max_bytes: int) -> bytes:
    """Read a whole file of at most ``max_bytes``.

    Raises:
        OSError: as `open_file`, or it is larger; its length is looked at first.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"abc"), file.flush()
        ...     read_file(file.name, 3)
        b'abc'
    """
    with open_file(path) as file:
        check_size(os.fstat(file.fileno()).st_size, max_bytes)
        content = file.read(max_bytes + 1)  # some files do not say how long they are
        if content is None:
            raise OSError(errno.EAGAIN, "has nothing to read yet")
    check_size(len(content), max_bytes)
    return content


def each_line(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield the rest of a file by lines, each with its end.

    Raises:
        OSError: a line is longer than ``max_bytes``; no more of it is read.

    Example:
        >>> import io
        >>> list(each_line(io.BytesIO(b"a\\nbc"), 9))
        [b'a\\n', b'bc']
    """
    while line := file.readline(max_bytes + 1):
        if len(line) > max_bytes:
            raise OSError(errno.EFBIG, f"has a line of more than {max_bytes / 2**20:g} MiB")
        yield line


def check_size(num_bytes: int, max_bytes: int) -> None:
    """Refuse what is larger than a limit.

    Raises:
        OSError: says the limit.

    Example:
        >>> check_size(2**21, 2**20)
        Traceback (most recent call last):
        OSError: [Errno 27] is larger than 1 MiB, the limit of such a file
    """
    if num_bytes > max_bytes:
        limit = f"{max_bytes / 2**20:g} MiB" if max_bytes >= 2**20 else f"{max_bytes:,} bytes"
        raise OSError(errno.EFBIG, f"is larger than {limit}, the limit of such a file")

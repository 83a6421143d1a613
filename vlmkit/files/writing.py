"""Writing: what stood there before stays until the new file is whole, and only a file is replaced.

A device, a pipe, a socket or a folder is never written to or replaced, also not through a link.
Files that a program names by itself in a run directory are never written through a link at all:
the directory may come from somebody else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vlmkit.errors import VlmkitError
from vlmkit.files.reading import Name, check_regular, status_of

_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_NAME = 255  # bytes, of most file systems


def check_target(path: Name, reads: Iterable[Name] = (), *, what: str = "") -> None:
    """Refuse to write where something other than an old file of no use would be lost.

    Args:
        path: where a file is to be written.
        reads: files that are read meanwhile, under any name of theirs.
        what: what names the path, as ``--out``; stands before it in errors.

    Raises:
        VlmkitError: a folder, a device, a pipe or a socket stands there, also behind a link; one of
            ``reads``; there is no folder for it.

    Example:
        >>> check_target("/dev/null", what="--out")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: --out /dev/null: is a device, not a file; give another name
    """
    where = f"{what} {os.fspath(path)}".lstrip()
    parent = Path(path).parent
    try:
        status = status_of(path)
        check_regular(status)
    except FileNotFoundError:
        if not parent.is_dir():
            raise VlmkitError(f"{where}: there is no folder {str(parent)!r}") from None
        return
    except IsADirectoryError:
        raise VlmkitError(f"{where}: is a folder, not a file") from None
    except OSError as error:
        raise VlmkitError(f"{where}: {_words(error)}; give another name") from None
    for other in reads:
        try:
            is_same = os.path.samestat(status, status_of(other))
        except OSError:
            continue
        if is_same:
            raise VlmkitError(
                f"{where}: would write over {os.fspath(other)}, which is read; give another name"
            )


def make_folder(path: Name) -> None:
    """Make a folder, and those around it, where it is not there.

    Raises:
        VlmkitError: it cannot be made.
    """
    with _written(path):
        try:
            os.makedirs(path, exist_ok=True)
        except FileExistsError as error:
            raise OSError(errno.EEXIST, "is there already, and no folder") from error
        except ValueError as error:
            raise OSError(errno.EINVAL, "is no name that a folder can have") from error


def write_file(path: Name, content: bytes) -> None:
    """Write a file in one piece: what stood there before stays until the new content is complete.

    Raises:
        VlmkitError: it cannot be written, as on a full disk, or something that is no file is there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(folder + "/a.txt", b"all of it")
        ...     Path(folder, "a.txt").read_bytes(), os.listdir(folder)
        (b'all of it', ['a.txt'])
    """
    with whole_file(path) as file:
        file.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: Name) -> Iterator[Path]:
    """Give a new file beside ``path``, which takes its place when the block ends well.

    A link there is replaced, not followed.

    Raises:
        VlmkitError: the file cannot be written; what stood at ``path`` is as before.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with whole_file(Path(folder, "a.txt")) as file:
        ...     _ = file.write_text("text")
        >>> os.listdir(folder)
        ['a.txt']
    """
    with _written(path):
        target = Path(path)
        _check_replaceable(target)
        handle, partial = _partial(target)
        os.close(handle)
        try:
            yield partial
            _check_replaceable(target)
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def whole_folder(path: Name) -> Iterator[Path]:
    """Give a new folder beside ``path``, which takes that name when the block ends well.

    Where a process is killed meanwhile, a folder ``.NAME.….part`` is left and none at ``path``.

    Args:
        path: no folder yet, or an empty one.

    Raises:
        VlmkitError: the folder cannot be made, or something has taken its name.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with whole_folder(Path(folder, "a")) as new:
        ...     write_file(new / "b.txt", b"text")
        >>> os.listdir(folder), os.listdir(Path(folder, "a"))
        (['a'], ['b.txt'])
    """
    target = Path(path)
    with _written(path):
        partial = _beside(target)
        os.mkdir(partial)
    try:
        yield partial
        with _written(path):
            os.rename(partial, target)  # in the place of an empty folder, and of nothing else
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def stream_file(path: Name) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Give a function that appends to a new file and hands each piece to the system at once.

    The new file takes the place of an old one when its first piece is written whole.

    Raises:
        VlmkitError: as `whole_file`.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.txt"
        >>> with stream_file(path) as write:
        ...     write(b"one ")
        ...     half = Path(path).read_bytes()
        ...     write(b"two")
        >>> half, Path(path).read_bytes()
        (b'one ', b'one two')
    """
    target = Path(path)
    with _written(path):
        _check_replaceable(target)
        handle, partial = _partial(target)
    is_there = False

    def write(piece: bytes | memoryview) -> None:
        nonlocal is_there
        with _written(path):
            left = memoryview(piece)
            while left:  # a write may take less than it is given
                left = left[os.write(handle, left) :]
            if not is_there:
                _check_replaceable(target)
                os.replace(partial, target)
                is_there = True

    try:
        yield write
    finally:
        os.close(handle)
        if not is_there:
            partial.unlink(missing_ok=True)


def append_file(path: Name) -> int:
    """Open a file to read, append and lock it; it is made if it is not there.

    Returns:
        A file descriptor.

    Raises:
        OSError: it cannot be opened, is no regular file, or is a link.
    """
    handle = os.open(path, _APPEND, 0o666)
    try:
        check_regular(os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_replaceable(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        check_regular(status_of(path))


def _partial(target: Path) -> tuple[int, Path]:
    """Make a new file beside the target, hidden, with the rights that a new file has."""
    partial = _beside(target)
    return os.open(partial, _NEW, 0o666), partial


def _beside(target: Path) -> Path:
    """Return a new hidden name beside the target."""
    suffix = f".{secrets.token_hex(6)}.part"
    stem = target.name.encode("utf-8", "surrogateescape")[: _MAX_NAME - len(suffix) - 1]
    return target.with_name(f".{stem.decode('utf-8', 'ignore')}{suffix}")


@contextlib.contextmanager
def _written(path: Name) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VlmkitError(f"{os.fspath(path)}: cannot be written: {_words(error)}") from None


def _words(error: OSError) -> str:
    return error.strerror or str(error)

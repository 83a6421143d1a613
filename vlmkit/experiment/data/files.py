"""Files of a data set: found and opened, or refused in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.shown import plain
from vlmkit.files import each_line, find_file, find_folder, open_file, read_file

MAX_LINE_BYTES = 128 * 2**20
"""Of a line of a data set, which may hold several images in base64."""

MAX_ANSWERS_BYTES = 64 * 2**20
"""Of a file of answers, which is held in memory."""


def resolve_file(text: str, base: Path, where: str) -> Path:
    """The file that a path relative to ``base`` names.

    Raises:
        VlmkitError: there is no such file.
    """
    path = base / os.path.expanduser(text)
    try:
        if find_file(path):
            return path
        open_file(path).close()
    except IsADirectoryError:
        raise VlmkitError(f"{where}: {plain(path)} is a folder, a file is needed") from None
    except FileNotFoundError:
        pass
    except OSError as error:
        raise VlmkitError(f"{where}: {plain(path)}: {error.strerror}") from error
    raise VlmkitError(f"{where}: {plain(path)} does not exist{_near(path)}")


def resolve_folder(text: str, base: Path, where: str) -> Path:
    """The folder that a path relative to ``base`` names.

    Raises:
        VlmkitError: there is no such folder.
    """
    path = base / os.path.expanduser(text)
    try:
        if find_folder(path):
            return path
        if os.path.exists(path):
            raise VlmkitError(f"{where}: {plain(path)} is a file, a folder is needed")
    except OSError as error:
        raise VlmkitError(f"{where}: {plain(path)}: {error.strerror}") from error
    raise VlmkitError(f"{where}: {plain(path)} does not exist{_near(path)}")


def open_data(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        VlmkitError: it can't be opened.
    """
    try:
        return open_file(path)
    except OSError as error:
        raise VlmkitError(f"{plain(path)}: can't be read: {error.strerror}") from error


def data_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the rest of an open file by lines.

    Raises:
        VlmkitError: it can't be read, or a line is too long to be held in memory.
    """
    try:
        yield from each_line(file, MAX_LINE_BYTES)
    except OSError as error:
        raise VlmkitError(f"{plain(path)}: {error.strerror}") from error


def read_data(path: Path, max_bytes: int) -> bytes:
    """Read a whole file.

    Raises:
        VlmkitError: it can't be read, or is larger.
    """
    try:
        return read_file(path, max_bytes)
    except OSError as error:
        raise VlmkitError(f"{plain(path)}: can't be read: {error.strerror}") from error


def _near(path: Path) -> str:
    try:
        return nearest(path.name, os.listdir(path.parent))
    except OSError:
        return ""

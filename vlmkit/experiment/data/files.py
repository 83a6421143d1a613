"""Files of a data set: found and opened, or refused in one line."""

from __future__ import annotations

import io
import os
from pathlib import Path

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.shown import plain


def resolve_file(text: str, base: Path, where: str) -> Path:
    """The file that a path relative to ``base`` names.

    Raises:
        VlmkitError: there is no such file.
    """
    return _resolve(text, base, where, wanted="file", other="folder")


def resolve_folder(text: str, base: Path, where: str) -> Path:
    """The folder that a path relative to ``base`` names.

    Raises:
        VlmkitError: there is no such folder.
    """
    return _resolve(text, base, where, wanted="folder", other="file")


def _resolve(text: str, base: Path, where: str, *, wanted: str, other: str) -> Path:
    path = base / os.path.expanduser(text)
    try:
        if path.is_file() if wanted == "file" else path.is_dir():
            return path
        if path.exists():
            raise VlmkitError(f"{where}: {plain(path)} is a {other}, a {wanted} is needed")
    except OSError as error:
        raise VlmkitError(f"{where}: {plain(path)}: {error.strerror}") from error
    raise VlmkitError(f"{where}: {plain(path)} does not exist{_near(path)}")


def open_data(path: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        VlmkitError: it can't be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise VlmkitError(f"{plain(path)}: can't be read: {error.strerror}") from error


def _near(path: Path) -> str:
    try:
        return nearest(path.name, os.listdir(path.parent))
    except OSError:
        return ""

"""Where a medium comes from: a file, an address, a ``data:`` URI or bytes, as one stream."""

from __future__ import annotations

import base64
import binascii
import io
import os
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from vlmkit.declare.packaged import packaged_image
from vlmkit.errors import VlmkitError, nearest
from vlmkit.files import check_size, open_file
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.printable import mask_address

READABLE_TYPES = (str, os.PathLike, bytes, bytearray, memoryview, io.BytesIO)
"""The types of sources that :func:`open_source` reads."""
_ARTICLES = {"image": "an image", "audio": "an audio", "video": "a video"}


def open_source(source: object, name: str, limits: PreprocessConfig, max_bytes: int) -> BinaryIO:
    """Open a source of one of the :data:`READABLE_TYPES`; the caller closes it.

    Args:
        source: a path, an http(s) URL, a ``data:`` URI, ``vlmkit:…``, or bytes.
        name: stands before messages; its first word is the kind of medium.
        limits: of downloads.
        max_bytes: of a file.

    Raises:
        VlmkitError: it cannot be opened; says why.

    Example:
        >>> open_source("data:;base64,aGk=", "image", PreprocessConfig(), 10).read()
        b'hi'
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(bytes(source))
    if isinstance(source, io.BytesIO):
        return io.BytesIO(source.getvalue())
    if isinstance(source, os.PathLike):
        return _file(Path(source), name, max_bytes)
    assert isinstance(source, str)
    scheme = _scheme(source)
    if scheme == "data":
        return io.BytesIO(decode_data_uri(source, name))
    if scheme == "vlmkit":
        return _file(packaged_image(source), name, max_bytes)
    if scheme in ("http", "https"):
        from vlmkit.preprocess.fetch import fetch  # httpx2 is slow to import

        return io.BytesIO(
            fetch(
                source,
                timeout_s=limits.url_timeout_s,
                max_bytes=limits.max_download_bytes,
                private_addresses=limits.private_addresses,
            )
        )
    if scheme and "://" in source:
        raise VlmkitError(
            f"{name}: {scheme}: addresses are not read; use http or https, or give the path"
        )
    return _file(Path(source), name, max_bytes)


def source_name(source: object, kind: str) -> str:
    """Name a source on one line, its kind first; data URIs and bytes are shortened.

    Example:
        >>> source_name(b"RIFF", "audio"), source_name("data:audio/wav;base64,UklG", "audio")
        ('audio in memory (4 bytes)', 'audio data:audio/wav;base64,… (26 characters)')
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{kind} in memory ({memoryview(source).nbytes} bytes)"
    if isinstance(source, io.BytesIO):
        return f"{kind} in memory ({source.getbuffer().nbytes} bytes)"
    text = str(source)
    if isinstance(source, str) and "://" in source.replace("\\", "/"):
        text = mask_address(source)
    if _scheme(text) == "data":
        return f"{kind} {text.split(',', 1)[0][:60]},… ({len(text)} characters)"
    return f"{kind} " + (text if len(text) <= 200 else f"{text[:60]}… ({len(text)} characters)")


def _scheme(text: str) -> str:
    head, colon, _ = text[:16].partition(":")
    return head.strip().lower() if colon and head.strip().isalnum() else ""


def _file(path: Path, name: str, max_bytes: int) -> BinaryIO:
    kind = _ARTICLES.get(name.split(" ", 1)[0], "a")
    try:
        file = open_file(path)
    except IsADirectoryError:
        raise VlmkitError(f"{name}: a folder; give the path of {kind} file in it") from None
    except FileNotFoundError:
        near = nearest(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise VlmkitError(f"{name}: no such file in {path.parent.resolve()}{near}") from None
    except OSError as error:  # no permission, a name that is too long, a pipe, a device
        raise _unreadable(name, error) from error
    try:
        check_size(os.fstat(file.fileno()).st_size, max_bytes)
    except OSError as error:
        file.close()
        raise _unreadable(name, error) from error
    return file


def _unreadable(name: str, error: OSError) -> VlmkitError:
    return VlmkitError(f"{name}: cannot be read ({error.strerror}); check the path")


def decode_data_uri(source: str, name: str) -> bytes:
    """Return what stands in a ``data:`` URI.

    Args:
        source: the URI.
        name: stands before messages.

    Raises:
        VlmkitError: it has no data, or they are no base64.

    Example:
        >>> decode_data_uri("data:;base64,aGk=", "image")
        b'hi'
    """
    head, comma, body = source.partition(",")
    if not comma:
        raise VlmkitError(f"{name}: a data: URI needs a comma before its data")
    raw = unquote_to_bytes(body)
    if not head.rstrip().lower().endswith(";base64"):
        return raw
    compact = b"".join(raw.split()).rstrip(b"=")
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VlmkitError(f"{name}: not valid base64 ({error})") from error

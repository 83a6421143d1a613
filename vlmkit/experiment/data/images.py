"""Images of samples: where they are, whether they are images at all, and their content."""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.shown import plain
from vlmkit.files import find_file, find_folder, open_file, read_file
from vlmkit.files.images import MAX_IMAGE_BYTES, readable_formats

_URL = re.compile(r"(https?://|data:)", re.IGNORECASE)


def is_url(source: str) -> bool:
    """Whether an image is on the web or in a ``data:`` URI, not in a file.

    >>> is_url("https://a.org/b.png"), is_url("b.png")
    (True, False)
    """
    return _URL.match(source) is not None


def locate_image(source: str, folder: Path) -> str:
    """Make a path relative to a folder absolute in it; URLs stay what they are.

    >>> locate_image("b.png", Path("/data"))
    '/data/b.png'
    """
    return source if is_url(source) else str(folder / source)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Write pixels, uint8[height, width, 3], as a PNG file that is not compressed: fast to read.

    >>> encode_png(np.zeros((2, 2, 3), np.uint8))[:4]
    b'\\x89PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def check_image(source: str | bytes, where: str) -> None:
    """Refuse a file that is missing or no image; its pixels are not decoded, URLs not fetched.

    Raises:
        VlmkitError: begins with ``where``.
    """
    if isinstance(source, str):
        if source[:5].lower() == "data:":
            from vlmkit.preprocess.images import describe_source
            from vlmkit.preprocess.sources import decode_data_uri

            source = decode_data_uri(source, f"{where}: {describe_source(source)}")
        elif is_url(source):
            return
        else:
            _check_file(Path(source), where)
    name = "the image" if isinstance(source, bytes) else f"image {plain(source)}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with (
                io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as stream,
                Image.open(stream, formats=readable_formats()),
            ):
                pass
    except UnidentifiedImageError:
        raise VlmkitError(f"{where}: {name} is corrupt or in no known format") from None
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise VlmkitError(f"{where}: {name} can't be read ({why})") from error


def image_content(source: str | bytes) -> bytes:
    """The bytes that an image is made of; of a URL its text, since nothing is fetched.

    Raises:
        VlmkitError: the file can't be read.
    """
    if isinstance(source, bytes):
        return source
    if is_url(source):
        return source.encode()
    try:
        return read_file(source, MAX_IMAGE_BYTES)
    except OSError as error:
        raise VlmkitError(f"image {plain(source)}: can't be read: {error.strerror}") from error


def _check_file(path: Path, where: str) -> None:
    try:
        if find_file(path):
            return
        if find_folder(path):
            raise VlmkitError(f"{where}: image {plain(path)} is a folder")
        near = nearest(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
    except (OSError, ValueError) as error:
        if isinstance(error, VlmkitError):
            raise
        raise VlmkitError(f"{where}: image {plain(path)} can't be read ({error})") from error
    if os.path.exists(path):
        raise VlmkitError(f"{where}: image {plain(path)} is no regular file")
    raise VlmkitError(f"{where}: image {plain(path)} does not exist{near}")

"""Images small enough to stand in the page itself."""

from __future__ import annotations

import base64
import binascii
import io
import urllib.parse
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from vlmkit.files import read_file
from vlmkit.preprocess.images import MAX_IMAGE_BYTES


class Thumbnail(NamedTuple):
    """An image of a sample, or why there is none."""

    uri: str | None  # a data URI
    note: str = ""
    width: int = 0
    height: int = 0


class Thumbnails:
    """Makes thumbnails until their budget is spent.

    Args:
        base: folder that relative paths start from.
        max_px: the longer side, in pixels.
        max_bytes: of all data URIs together.
    """

    def __init__(self, base: Path, *, max_px: int, max_bytes: int) -> None:
        self._base, self._max_px, self._left = base, max_px, max_bytes

    def of(self, image: str) -> Thumbnail:
        """The thumbnail of a path or a data URI; what is on the network stays there."""
        if "://" in image[:12] and not image.startswith("file://"):
            return Thumbnail(None, "an image on the network, not fetched")
        if self._left <= 0:
            return Thumbnail(None, "left out: the report's images are at their size limit")
        try:
            thumbnail = self._shrunk(_encoded(image, self._base))
        except OSError as error:
            reason = error.strerror or "not a readable image"
            return Thumbnail(None, f"image missing: {reason}")
        except (ValueError, SyntaxError, Image.DecompressionBombError, Warning):
            return Thumbnail(None, "image missing: not a readable image")
        self._left -= len(thumbnail.uri or "")
        return thumbnail

    def _shrunk(self, encoded: bytes) -> Thumbnail:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as opened:
                opened.draft("RGB", (2 * self._max_px, 2 * self._max_px))
                upright = ImageOps.exif_transpose(opened)
                has_alpha = "A" in upright.getbands() or "transparency" in upright.info
                small = upright.convert("RGBA" if has_alpha else "RGB")
        small.thumbnail((self._max_px, self._max_px))
        file = io.BytesIO()
        small.save(file, "WEBP", quality=82)
        uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
        return Thumbnail(uri, "", *small.size)


def _encoded(image: str, base: Path) -> bytes:
    if image.startswith("data:"):
        head, _, body = image.partition(",")
        try:
            if head.endswith(";base64"):
                return base64.b64decode(body)
            return urllib.parse.unquote_to_bytes(body)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    path = urllib.parse.unquote(image.removeprefix("file://")) if "://" in image[:8] else image
    return read_file(base / path, MAX_IMAGE_BYTES)

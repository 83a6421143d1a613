"""Any image source to an upright 8-bit RGB image."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from PIL import Image, UnidentifiedImageError

from vlmkit.errors import VlmkitError
from vlmkit.files.images import MAX_IMAGE_BYTES, quick_formats, readable_formats
from vlmkit.preprocess.config import PILLOW_MAX_PIXELS, PreprocessConfig
from vlmkit.preprocess.sources import open_source, source_name
from vlmkit.processors.rgb import to_rgb

ImageSource: TypeAlias = str | Path | bytes | bytearray | memoryview | io.BytesIO | Image.Image
"""A path, an http(s) URL, a ``data:`` URI, an encoded image in memory, or a Pillow image.

``vlmkit:shapes/samples/count_all.png`` and its like are pictures that travel with the package.
"""

ORIENTATION_TAG = 0x0112
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOADED_FROM = "_vlmkit_loaded_from"  # attribute of a loaded image: its source, for errors
READABLE = "JPEG, PNG, GIF, BMP, WebP, TIFF and others that Pillow reads"


def load_image(source: ImageSource, *, config: PreprocessConfig | None = None) -> Image.Image:
    """Load an image as RGB, turned upright by its EXIF orientation.

    Transparency is composited on white, as the transformers image processors do; of an animation
    the first frame is taken; 16-bit greys are scaled to 8 bits.

    Args:
        source: a path, an http(s) URL, a ``data:`` URI, an encoded image, or a Pillow image.
        config: the limits for downloads and pixels; None takes the defaults. ``resize_shape`` is
            not applied here.

    Raises:
        VlmkitError: the source cannot be read as an image, named with what would work.

    Example:
        >>> load_image(Image.new("LA", (2, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    limits = PreprocessConfig() if config is None else config
    name = describe_source(source)
    if isinstance(source, Image.Image):
        return _upright_rgb(source, name, limits)
    check_source(source)
    with open_source(source, name, limits, MAX_IMAGE_BYTES) as stream:
        image = _upright_rgb(_open(stream, name, limits), name, limits)
    vars(image)[_LOADED_FROM] = name
    return image


def resize_image(image: Image.Image, shape: Sequence[int]) -> Image.Image:
    """Resize to exactly ``shape`` = (height, width), bicubic.

    Example:
        >>> resize_image(Image.new("RGB", (8, 8)), (2, 4)).size  # Pillow says (width, height)
        (4, 2)
    """
    height, width = shape
    return image.resize((width, height), Image.Resampling.BICUBIC)


def describe_source(source: object) -> str:
    """Name an image source on one line; data URIs and bytes are shortened.

    Example:
        >>> describe_source("data:image/png;base64,iVBORw0KGgo=")
        'image data:image/png;base64,… (34 characters)'
    """
    if isinstance(source, Image.Image):
        if _LOADED_FROM in vars(source):
            return str(vars(source)[_LOADED_FROM])
        kind = source.format or source.mode
        return f"PIL image ({kind}, height {source.height}, width {source.width})"
    return source_name(source, "image")


def check_source(source: object) -> None:
    """Refuse what is of no type that an image can be read from.

    Raises:
        VlmkitError: says what came and what to give.
    """
    if isinstance(source, list | tuple):
        raise VlmkitError(
            f"a list of {len(source)} images stands where one image should; lists of images are not"
            " nested"
        )
    known = (str, os.PathLike, bytes, bytearray, memoryview, io.BytesIO, Image.Image)
    if not isinstance(source, known):
        raise VlmkitError(
            f"an image of type {type(source).__name__} cannot be read; give a path, a URL, a data:"
            " URI, bytes, or a PIL image (PIL.Image.fromarray makes one of an array)"
        )


def _open(stream: BinaryIO, name: str, limits: PreprocessConfig) -> Image.Image:
    try:
        if not stream.read(1):
            raise VlmkitError(f"{name}: empty (0 bytes); give an image file")
        with warnings.catch_warnings():
            # Pillow warns at half of the size it refuses; our own limit decides.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _identify(stream)
    except VlmkitError:
        raise
    except Image.DecompressionBombError as error:
        found = f"more than {PILLOW_MAX_PIXELS:,}"
        raise _too_many_pixels(name, found, limits.max_image_pixels) from error
    except UnidentifiedImageError as error:
        raise VlmkitError(
            f"{name}: not an image in a known format; readable: {READABLE}"
        ) from error
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        raise _broken(name, error) from error


def _identify(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream, formats=quick_formats())
    except UnidentifiedImageError:
        return Image.open(stream, formats=readable_formats())


def _upright_rgb(image: Image.Image, name: str, limits: PreprocessConfig) -> Image.Image:
    _check_size(image, name, limits.max_image_pixels)
    try:
        image.load()
        turn = TRANSPOSE.get(image.getexif().get(ORIENTATION_TAG, 1))
        rgb = to_rgb(image)
        rgb = rgb.copy() if turn is None else rgb.transpose(turn)
    except VlmkitError as error:
        raise VlmkitError(f"{name}: {error}") from error
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        raise _broken(name, error) from error
    rgb.info = {}  # else a second pass would turn it again
    return rgb


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width < 1 or image.height < 1:
        raise VlmkitError(f"{name}: has no pixels (height {image.height}, width {image.width})")
    if image.width * image.height > max_pixels:
        shown = f"{image.height}×{image.width}"
        raise _too_many_pixels(name, f"{shown} = {image.width * image.height:,}", max_pixels)


def _too_many_pixels(name: str, found: str, max_pixels: int) -> VlmkitError:
    return VlmkitError(
        f"{name}: {found} pixels, the limit is {max_pixels:,} (preprocess.max_image_pixels); scale"
        " it down"
    )


def _broken(name: str, error: Exception) -> VlmkitError:
    why = " ".join(str(error).split()) or type(error).__name__
    return VlmkitError(f"{name}: the image is corrupt or cut short ({why}); save it again")

"""Any image source to an upright 8-bit RGB image."""

from __future__ import annotations

import base64
import binascii
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias
from urllib.parse import unquote_to_bytes

from PIL import Image, UnidentifiedImageError

from vlmkit.declare.packaged import packaged_image
from vlmkit.errors import VlmkitError, nearest
from vlmkit.files import check_size, open_file
from vlmkit.files.images import MAX_IMAGE_BYTES, quick_formats, readable_formats
from vlmkit.preprocess.config import PILLOW_MAX_PIXELS, PreprocessConfig
from vlmkit.printable import mask_address
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
    with _stream(source, name, limits) as stream:
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
    if isinstance(source, bytes | bytearray | memoryview):
        return f"image in memory ({memoryview(source).nbytes} bytes)"
    if isinstance(source, io.BytesIO):
        return f"image in memory ({source.getbuffer().nbytes} bytes)"
    text = str(source)
    if isinstance(source, str) and "://" in source.replace("\\", "/"):
        text = mask_address(source)
    if _scheme(text) == "data":
        return f"image {text.split(',', 1)[0][:60]},… ({len(text)} characters)"
    return "image " + (text if len(text) <= 200 else f"{text[:60]}… ({len(text)} characters)")


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


def _stream(source: object, name: str, limits: PreprocessConfig) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(bytes(source))
    if isinstance(source, io.BytesIO):
        return io.BytesIO(source.getvalue())
    if isinstance(source, os.PathLike):
        return _file(Path(source), name)
    check_source(source)
    assert isinstance(source, str)
    scheme = _scheme(source)
    if scheme == "data":
        return io.BytesIO(decode_data_uri(source, name))
    if scheme == "vlmkit":
        return _file(packaged_image(source), name)
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
    return _file(Path(source), name)


def _scheme(text: str) -> str:
    head, colon, _ = text[:16].partition(":")
    return head.strip().lower() if colon and head.strip().isalnum() else ""


def _file(path: Path, name: str) -> BinaryIO:
    try:
        file = open_file(path)
        check_size(os.fstat(file.fileno()).st_size, MAX_IMAGE_BYTES)
        return file
    except IsADirectoryError:
        raise VlmkitError(f"{name}: a folder; give the path of an image file in it") from None
    except FileNotFoundError:
        near = nearest(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        raise VlmkitError(f"{name}: no such file in {path.parent.resolve()}{near}") from None
    except OSError as error:  # no permission, a name that is too long, a pipe, a device
        raise VlmkitError(f"{name}: cannot be read ({error.strerror}); check the path") from error


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

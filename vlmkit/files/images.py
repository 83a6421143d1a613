"""Which image files are read: formats, and the largest size."""

from __future__ import annotations

MAX_IMAGE_BYTES = 640 * 2**20
"""As many pixels as Pillow decodes, in three bytes each without compression, and some more."""

# The common ones first. Left out are those that start another program (EPS: Ghostscript) or are
# no images (PDF, MPEG, HDF5).
_COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "MPO", "AVIF", "JPEG2000")
_FORMATS = (*_COMMON, "ICO", "TGA", "DIB", "ICNS", "PSD", "PCX", "SGI", "DDS", "QOI", "XBM")


def quick_formats() -> list[str]:
    """The formats that are read, of those that Pillow has imported so far, as `Image.open` takes.

    Example:
        >>> "PNG" in quick_formats()
        True
    """
    from PIL import Image

    Image.preinit()
    return [name for name in _FORMATS if name in Image.OPEN]


def readable_formats() -> list[str]:
    """All formats that are read, as `Image.open` takes them.

    Example:
        >>> "PNG" in readable_formats(), "EPS" in readable_formats()
        (True, False)
    """
    from PIL import Image

    Image.init()  # imports all of Pillow's, which takes a moment
    return [name for name in _FORMATS if name in Image.OPEN]

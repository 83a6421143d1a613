"""Any Pillow mode to 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlmkit.errors import VlmkitError

WHITE = (255, 255, 255, 255)
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MODES = "1, L, LA, P, PA, RGB, RGBA, RGBX, CMYK, YCbCr, HSV, I;16, I, F"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB; transparency is composited on white, deep greys are scaled to 8 bits.

    On 8-bit modes this equals the conversion of the transformers image processors. 16-bit greys
    v become round(v / 257); mode ``I`` is taken for 16 bits unless it stays below 256, and ``F``
    for the range 0..1, or 0..255 where a value exceeds 1.

    Raises:
        VlmkitError: the mode or its range of values cannot be shown as RGB.

    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode in WIDE_MODES:
        image = _to_8_bits(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    try:
        if _has_alpha(image):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise VlmkitError(
            f"image mode {image.mode} cannot be converted to RGB; modes that can: {MODES}"
        ) from error


def _has_alpha(image: Image.Image) -> bool:
    alpha_modes = ("RGBA", "LA", "PA", "RGBa", "La")
    return image.mode in alpha_modes or image.info.get("transparency") is not None


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode.startswith("I;16"):
        scaled = (values.astype(np.uint32) + 128) // 257
    elif not 0 <= low <= high <= (65535 if image.mode == "I" else 255):
        raise VlmkitError(
            f"image mode {image.mode} with values from {low:g} to {high:g}: mode I needs 0..65535,"
            " mode F 0..1 or 0..255; scale the values first"
        )
    elif image.mode == "I":
        scaled = values if high <= 255 else (values.astype(np.uint32) + 128) // 257
    else:
        scaled = np.rint(values * (255.0 if high <= 1 else 1.0))
    return Image.fromarray(scaled.astype(np.uint8))

"""The image processor of the Qwen2-VL families on numpy and Pillow alone.

Reference: Wang et al., 2024, "Qwen2-VL" (arXiv:2409.12191), section 2.1; equal to
``Qwen2VLImageProcessorPil`` of transformers bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.errors import VlmkitError
from vlmkit.inputs import ImageGrid
from vlmkit.processors.rgb import to_rgb

MAX_ASPECT_RATIO = 200
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Qwen2VLImages(NamedTuple):
    """How images become patches. The defaults are those of the transformers class."""

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    do_resize: bool = True
    resample: int = int(Image.Resampling.BICUBIC)
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD


def read_qwen2_vl_images(values: Mapping[str, Any], where: str) -> Qwen2VLImages:
    """Read a ``preprocessor_config.json``, with ``min_pixels``/``max_pixels`` or with ``size``.

    Args:
        values: the file's contents.
        where: the file's name for error messages.

    Raises:
        VlmkitError: a value cannot be used, named with its key.

    Example:
        >>> read_qwen2_vl_images({"size": {"shortest_edge": 784, "longest_edge": 12544}}, "-")[3:5]
        (784, 12544)
    """
    size = values.get("size") or {}
    merged: dict[str, Any] = {
        "min_pixels": size.get("shortest_edge", size.get("min_pixels")),
        "max_pixels": size.get("longest_edge", size.get("max_pixels")),
    }
    merged |= {k: values[k] for k in Qwen2VLImages._fields if values.get(k) is not None}
    merged = {key: value for key, value in merged.items() if value is not None}
    for key in ("image_mean", "image_std"):
        if key in merged:
            value = merged[key]
            merged[key] = (value,) * 3 if isinstance(value, int | float) else tuple(value)
            if len(merged[key]) != 3:
                raise VlmkitError(f"{where}: {key} needs one number or three, not {value!r}")
    config = Qwen2VLImages(**merged)
    for key in ("patch_size", "temporal_patch_size", "merge_size", "min_pixels", "max_pixels"):
        value = merged.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise VlmkitError(f"{where}: {key} needs a positive integer, not {value!r}")
    return config


def smart_resize(height: int, width: int, config: Qwen2VLImages) -> tuple[int, int]:
    """Return the nearest (height, width) of whole merged patches within the pixel range.

    The aspect ratio is kept as far as rounding to ``patch_size * merge_size`` pixels allows.

    Args:
        height, width: the image's size in pixels, positive.

    Raises:
        VlmkitError: an aspect ratio above 200.

    Example:
        >>> smart_resize(480, 640, Qwen2VLImages())
        (476, 644)
    """
    longer, shorter = max(height, width), min(height, width)
    if longer / shorter > MAX_ASPECT_RATIO:
        raise VlmkitError(
            f"image of {height}×{width} pixels (height×width): the aspect ratio is"
            f" {longer / shorter:.0f}, the limit is {MAX_ASPECT_RATIO}; crop it or set resize_shape"
        )
    unit = config.patch_size * config.merge_size
    new_height, new_width = round(height / unit) * unit, round(width / unit) * unit
    if new_height * new_width > config.max_pixels:
        scale = math.sqrt(height * width / config.max_pixels)
        new_height = max(unit, math.floor(height / scale / unit) * unit)
        new_width = max(unit, math.floor(width / scale / unit) * unit)
    elif new_height * new_width < config.min_pixels:
        scale = math.sqrt(config.min_pixels / (height * width))
        new_height = math.ceil(height * scale / unit) * unit
        new_width = math.ceil(width * scale / unit) * unit
    return new_height, new_width


def process_images(
    images: Sequence[Image.Image], config: Qwen2VLImages
) -> tuple[NDArray[np.float32], tuple[ImageGrid, ...]]:
    """Resize, normalise and cut images into patches.

    Patches are ordered by merged block: those that the vision encoder merges into one visual token
    are neighbours. A still image fills all ``temporal_patch_size`` frames.

    Returns:
        Patches float32 ``[N, 3 * T * P * P]`` of all images, and the grid of each image.

    Example:
        >>> patches, grids = process_images([Image.new("RGB", (56, 84))], Qwen2VLImages())
        >>> patches.shape, grids
        ((24, 1176), (ImageGrid(time=1, height=6, width=4),))
    """
    table = _value_table(config)
    cut = [_process_image(image, config, table) for image in images]
    size = 3 * config.temporal_patch_size * config.patch_size**2
    empty = np.zeros((0, size), np.float32)
    patches = np.concatenate([c[0] for c in cut]) if cut else empty
    return patches, tuple(grid for _, grid in cut)


def _value_table(config: Qwen2VLImages) -> NDArray[np.float32]:
    # Pixels are bytes, so rescaling and normalising are a look-up of 256 values per channel. The
    # casts are those of transformers: multiply in float64, round to float32, normalise there.
    byte = np.arange(256)
    factor = config.rescale_factor if config.do_rescale else 1.0
    values = (byte.astype(np.float64) * factor).astype(np.float32)
    if not config.do_normalize:
        return np.stack([values] * 3)
    mean = np.array(config.image_mean, np.float32)[:, None]
    std = np.array(config.image_std, np.float32)[:, None]
    return np.asarray((values - mean) / std, np.float32)


def _process_image(
    image: Image.Image, config: Qwen2VLImages, table: NDArray[np.float32]
) -> tuple[NDArray[np.float32], ImageGrid]:
    image = to_rgb(image)
    patch, merge, unit = config.patch_size, config.merge_size, config.patch_size * config.merge_size
    height, width = image.height, image.width
    if config.do_resize:
        height, width = smart_resize(height, width, config)
        image = image.resize((width, height), config.resample)
    elif height % unit or width % unit:
        raise VlmkitError(
            f"image of {height}×{width} pixels (height×width): the checkpoint switches resizing off"
            f" (do_resize), so both must be multiples of {unit}; set resize_shape"
        )
    rows, columns = height // patch, width // patch
    blocks = np.asarray(image).reshape(
        rows // merge, merge, patch, columns // merge, merge, patch, 3
    )
    pixels = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, patch * patch)
    patches = np.empty(
        (rows * columns, 3, config.temporal_patch_size, patch * patch), dtype=np.float32
    )
    for channel in range(3):
        patches[:, channel] = table[channel][pixels[:, channel]][:, None]
    return patches.reshape(rows * columns, -1), ImageGrid(1, rows, columns)

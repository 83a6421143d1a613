"""The image processor of the Qwen2-VL families on numpy and Pillow alone.

Reference: Wang et al., 2024, "Qwen2-VL" (arXiv:2409.12191), section 2.1; equal to
``Qwen2VLImageProcessorPil`` of transformers bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.contracts.inputs import ImageGrid
from vlmkit.declare.section import Section, is_integer, is_number, shown
from vlmkit.errors import VlmkitError
from vlmkit.processors.patch_limits import MAX_NUMBERS
from vlmkit.processors.rgb import to_rgb

MAX_ASPECT_RATIO = 200
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIZES = ("shortest_edge", "longest_edge", "min_pixels", "max_pixels")


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


def read_qwen2_vl_images(section: Section) -> Qwen2VLImages:
    """Read a ``preprocessor_config.json``, with ``min_pixels``/``max_pixels`` or with ``size``.

    Both say how many pixels an image may have: ``size`` calls the numbers ``shortest_edge`` and
    ``longest_edge``, or as they are called outside. What is missing has its default.

    Raises:
        VlmkitError: a value cannot be used, named with its key.

    Example:
        >>> size = {"shortest_edge": 784, "longest_edge": 12544}
        >>> read_qwen2_vl_images(Section({"size": size}))[3:5]
        (784, 12544)
    """
    default = Qwen2VLImages()
    size = section.inner("size")
    unknown = [k for k, value in size.values.items() if k not in _SIZES and value is not None]
    if unknown and not all(section.values.get(key) for key in ("min_pixels", "max_pixels")):
        raise section.error("size", f"has {shown(unknown[0])}; it is read with {', '.join(_SIZES)}")

    def pixels(key: str, edge: str, fallback: int) -> int:
        inner = edge if size.values.get(edge) is not None else key
        return section.positive(key, size.positive(inner, fallback))

    config = default._replace(
        patch_size=section.positive("patch_size", default.patch_size),
        temporal_patch_size=section.positive("temporal_patch_size", default.temporal_patch_size),
        merge_size=section.positive("merge_size", default.merge_size),
        min_pixels=pixels("min_pixels", "shortest_edge", default.min_pixels),
        max_pixels=pixels("max_pixels", "longest_edge", default.max_pixels),
        do_resize=section.flag("do_resize", default.do_resize),
    )
    if config.min_pixels > config.max_pixels:
        raise section.error(
            "min_pixels", f"is {config.min_pixels}, more than max_pixels, {config.max_pixels}"
        )
    return read_pixels(section, config)


def read_pixels(section: Section, default: Qwen2VLImages) -> Qwen2VLImages:
    """Read how pixels are resampled, rescaled and normalised; the sizes are those of a default.

    Raises:
        VlmkitError: a value cannot be used, named with its key.
    """
    config = default._replace(
        resample=_resample(section, default.resample),
        do_rescale=section.flag("do_rescale", default.do_rescale),
        rescale_factor=section.number("rescale_factor", default.rescale_factor),
        do_normalize=section.flag("do_normalize", default.do_normalize),
        image_mean=_per_channel(section, "image_mean", default.image_mean),
        image_std=_per_channel(section, "image_std", default.image_std),
    )
    with np.errstate(all="ignore"):
        if not np.isfinite(value_table(config)).all():
            keys = "image_mean, image_std, rescale_factor"
            raise section.error(keys, "give pixels that are no finite numbers")
    return config


def check_sizes(config: Qwen2VLImages, section: Section) -> None:
    """Refuse settings with which every image is too large.

    Raises:
        VlmkitError: names their keys.
    """
    per_pixel = 3 * config.temporal_patch_size
    if per_pixel * (config.patch_size * config.merge_size) ** 2 > MAX_NUMBERS:
        sizes = f"{config.patch_size}, {config.merge_size}, {config.temporal_patch_size}"
        keys = "patch_size, merge_size, temporal_patch_size"
        raise section.error(keys, f"are {sizes}; a visual token of so many pixels is too large")
    if per_pixel * config.min_pixels > MAX_NUMBERS and config.do_resize:
        most = MAX_NUMBERS // per_pixel
        raise section.error(
            "min_pixels",
            f"is {config.min_pixels}; with temporal_patch_size {config.temporal_patch_size} it can"
            f" be {most} at most",
        )


def _resample(section: Section, default: int) -> int:
    value = section.values.get("resample")
    value = default if value is None else value
    names = {filter_.name.lower(): int(filter_) for filter_ in Image.Resampling}
    if isinstance(value, str) and value.lower() in names:
        return names[value.lower()]
    if not is_integer(value) or value not in names.values():
        choices = ", ".join(f"{number} ({name})" for name, number in names.items())
        raise section.error("resample", f"is {shown(value)}; it has to be one of {choices}")
    return int(value)


def _per_channel(section: Section, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = section.values.get(key)
    if value is None:
        return default
    numbers = value if isinstance(value, list) else [value] * 3
    is_valid = all(is_number(n) and (n > 0 or key == "image_mean") for n in numbers)
    if len(numbers) != 3 or not is_valid:
        above = " above 0" if key == "image_std" else ""
        raise section.error(key, f"is {shown(value)}; it has to be one number{above} or three")
    return tuple(float(number) for number in numbers)


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
    unit = _unit(config)
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


def image_grid(height: int, width: int, config: Qwen2VLImages) -> ImageGrid:
    """Return the patches that an image becomes; no pixel is touched.

    Args:
        height, width: the image's size in pixels, positive.

    Raises:
        VlmkitError: the aspect ratio is above 200, there would be too many patches, or the
            checkpoint resizes no images and the size is no multiple of its visual tokens'.

    Example:
        >>> image_grid(480, 640, Qwen2VLImages())
        ImageGrid(time=1, height=34, width=46)
    """
    given, unit = f"image of {height}×{width} pixels (height×width)", _unit(config)
    if config.do_resize:
        height, width = smart_resize(height, width, config)
    elif height % unit or width % unit:
        raise VlmkitError(
            f"{given}: the checkpoint switches resizing off (do_resize), so both must be multiples"
            f" of {unit}; set resize_shape"
        )
    if 3 * config.temporal_patch_size * height * width > MAX_NUMBERS:
        raise VlmkitError(
            f"{given}: its patches are {height}×{width} pixels in {config.temporal_patch_size}"
            f" frames, the limit is {MAX_NUMBERS // (3 * config.temporal_patch_size):,} pixels; set"
            " a smaller resize_shape, or max_pixels in preprocessor_config.json"
        )
    return ImageGrid(1, height // config.patch_size, width // config.patch_size)


def _unit(config: Qwen2VLImages) -> int:
    """Pixels per side of a visual token."""
    return config.patch_size * config.merge_size


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
    table = value_table(config)
    cut = [_process_image(image, config, table) for image in images]
    size = 3 * config.temporal_patch_size * config.patch_size**2
    empty = np.zeros((0, size), np.float32)
    patches = np.concatenate([c[0] for c in cut]) if cut else empty
    return patches, tuple(grid for _, grid in cut)


def value_table(config: Qwen2VLImages) -> NDArray[np.float32]:
    """Return what each value of a byte becomes, float32 ``[3, 256]``, a row per channel."""
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
    patch, merge = config.patch_size, config.merge_size
    _, rows, columns = grid = image_grid(image.height, image.width, config)
    if config.do_resize:
        image = image.resize((columns * patch, rows * patch), config.resample)
    blocks = np.asarray(image).reshape(
        rows // merge, merge, patch, columns // merge, merge, patch, 3
    )
    pixels = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, patch * patch)
    patches = np.empty(
        (rows * columns, 3, config.temporal_patch_size, patch * patch), dtype=np.float32
    )
    for channel in range(3):
        patches[:, channel] = table[channel][pixels[:, channel]][:, None]
    return patches.reshape(rows * columns, -1), grid

"""Images of one size, as SigLIP takes them, on numpy and Pillow alone; Gemma 3's are such.

Reference: Zhai et al. (2023), "SigLIP", arXiv:2303.15343; Gemma Team (2025), "Gemma 3 Technical
Report", arXiv:2503.19786, section 2.1; pixels equal those of ``Gemma3ImageProcessorPil`` of
transformers bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.contracts.inputs import ImageGrid
from vlmkit.declare.section import Section
from vlmkit.processors.qwen2_vl import Qwen2VLImages, check_sizes, process_images, read_pixels
from vlmkit.processors.rgb import to_rgb

HALF = (0.5, 0.5, 0.5)
_DEFAULTS = Qwen2VLImages(
    resample=int(Image.Resampling.BILINEAR), image_mean=HALF, image_std=HALF, do_resize=False
)


class FixedSizeImages(NamedTuple):
    """How images become patches of one grid, whatever their sizes."""

    side: int  # pixels of a resized image, in height and width
    patches: Qwen2VLImages  # what is done with resized ones

    @property
    def merge_size(self) -> int:
        """How many patches of a row are one visual token."""
        return self.patches.merge_size


def read_fixed_size_images(section: Section, config: Section) -> FixedSizeImages:
    """Read the ``preprocessor_config.json`` of Gemma 3.

    Args:
        section: of that file.
        config: of config.json; sizes of patches and of visual tokens stand there alone.

    Raises:
        VlmkitError: a value cannot be used, named with its key, or the two files disagree.
    """
    vision = config.inner("vision_config")
    side, patch = vision.positive("image_size", 224), vision.positive("patch_size", 16)
    per_side = math.isqrt(config.positive("mm_tokens_per_image", 256))
    size = section.inner("size")
    for key in ("height", "width"):
        if (given := size.positive(key, side)) != side:
            place = f"{vision.file}: {vision.path}image_size"
            raise size.error(key, f"is {given}, but {place} is {side}; the two files disagree")
    if section.flag("do_pan_and_scan", False):
        raise section.error(
            "do_pan_and_scan",
            "is true, which is not supported; set it to false",
        )
    if not section.flag("do_resize", True):
        raise section.error("do_resize", "is false, which is not supported; set it to true")
    merge = side // patch // per_side if per_side else 0
    if merge < 1 or merge * patch * per_side != side:
        raise vision.error(
            "image_size",
            f"is {side}; {per_side}x{per_side} visual tokens of whole {patch}x{patch}"
            " patches do not fill it",
        )
    defaults = _DEFAULTS._replace(patch_size=patch, temporal_patch_size=1, merge_size=merge)
    found = FixedSizeImages(side, read_pixels(section, defaults))
    check_sizes(found.patches, section)
    return found


def fixed_grid(height: int, width: int, config: FixedSizeImages) -> ImageGrid:
    """Return the patches that an image becomes, the same for every size.

    Args:
        height, width: the image's size in pixels, positive.

    Example:
        >>> fixed_grid(480, 640, FixedSizeImages(896, Qwen2VLImages()))
        ImageGrid(time=1, height=64, width=64)
    """
    return ImageGrid(1, *[config.side // config.patches.patch_size] * 2)


def process_fixed_size(
    images: Sequence[Image.Image], config: FixedSizeImages
) -> tuple[NDArray[np.float32], tuple[ImageGrid, ...]]:
    """Resize images to one size, normalise and cut them into patches, block by merged block.

    Returns:
        Patches float32 ``[N, 3 * P * P]`` of all images, and the grid of each image.

    Example:
        >>> small = Qwen2VLImages(temporal_patch_size=1, do_resize=False)
        >>> image = Image.new("RGB", (5, 9))
        >>> patches, grids = process_fixed_size([image], FixedSizeImages(28, small))
        >>> patches.shape, grids
        ((4, 588), (ImageGrid(time=1, height=2, width=2),))
    """
    size = (config.side, config.side)
    resized = [to_rgb(image).resize(size, config.patches.resample) for image in images]
    return process_images(resized, config.patches)

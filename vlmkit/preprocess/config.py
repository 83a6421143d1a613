"""What a user can set about images before they reach the model."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field

from vlmkit.declare.configbase import Float, Int, StageConfig

PILLOW_MAX_PIXELS = 178_956_970  # Pillow itself refuses images beyond this
Side = Annotated[Int, Field(gt=0, le=65_500)]


def _is_image_size(shape: tuple[int, int]) -> tuple[int, int]:
    if math.prod(shape) > PILLOW_MAX_PIXELS:
        raise ValueError(
            f"{shape[0]}×{shape[1]} is {math.prod(shape):,} pixels, the limit is "
            f"{PILLOW_MAX_PIXELS:,}"
        )
    return shape


Shape = Annotated[tuple[Side, Side], AfterValidator(_is_image_size)]


class PreprocessConfig(StageConfig):
    """How a request's images are fetched and sized."""

    resize_shape: Shape | None = Field(
        None, description="Resize every image to exactly (height, width) pixels first."
    )
    url_timeout_s: Float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Limit for fetching one image, redirects included, in seconds.",
    )
    max_download_bytes: Int = Field(32 * 2**20, gt=0, description="Refuse larger downloads.")
    private_addresses: bool = Field(
        True,
        description="Also fetch from this machine and from private networks; false refuses them, "
        "for addresses that are not one's own. Behind a proxy the proxy decides.",
    )
    max_image_pixels: Int = Field(
        PILLOW_MAX_PIXELS,
        gt=0,
        le=PILLOW_MAX_PIXELS,
        description="Refuse images with more pixels, before they are decoded.",
    )

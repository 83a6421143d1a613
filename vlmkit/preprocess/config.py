"""What a user can set about images, videos and sounds before they reach the model."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.processors.video_rules import MAX_FRAMES

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
    """How a request's images, videos and sounds are fetched and sized."""

    resize_shape: Shape | None = Field(
        None, description="Resize every image and frame to exactly (height, width) pixels first."
    )
    url_timeout_s: Float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Limit for fetching one file, redirects included, in seconds.",
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
        description="Refuse images and frames with more pixels, before they are decoded.",
    )
    fps: Float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Frames per second to take of a video; null: what the checkpoint says, else 2. "
        "Of frames given one by one: how many there are in a second, and all are taken.",
    )
    max_frames: Int | None = Field(
        None,
        gt=0,
        le=MAX_FRAMES,
        description="Take at most so many frames of a video; null: what the checkpoint says.",
    )
    max_video_s: Float = Field(
        3600.0, gt=0, le=86_400, description="Refuse longer videos, in seconds."
    )
    max_audio_s: Float = Field(
        3600.0, gt=0, le=86_400, description="Refuse longer sounds, in seconds."
    )
    long_audio: Literal["refuse", "cut", "split"] = Field(
        "refuse",
        description="A sound longer than the model hears at once: an error, its beginning alone, "
        "or one window after another.",
    )

"""Prompts with a video and an image for the small checkpoints."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tests.models.tiny_configs import (
    END,
    IMAGE,
    START,
    VIDEO,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_vl,
)
from vlmkit.contracts.inputs import Inputs, Media

GRID, PICTURE = (3, 6, 4), (1, 4, 8)
SECONDS = 0.85


class VideoCase(NamedTuple):
    """A model, and how its prompts tell times."""

    config: dict[str, Any]
    seconds: float | None = None  # between steps of the grid, as positions
    is_split: bool = False  # each step of the grid has its time as text before it


CASES = {
    "qwen2_vl": VideoCase(qwen2_vl()),
    "qwen2_5_vl": VideoCase(qwen2_5_vl(vision={"tokens_per_second": 3}), SECONDS),
    "qwen3_vl": VideoCase(qwen3_vl(), is_split=True),
    "qwen3_5": VideoCase(qwen3_5(), is_split=True),
}


def patches(case: VideoCase) -> tuple[np.ndarray, np.ndarray]:
    """The patches of the video and of the image."""
    vision = case.config["vision_config"]
    size = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    rng = np.random.default_rng(11)
    counts = [int(np.prod(grid)) for grid in (GRID, PICTURE)]
    video, picture = (rng.standard_normal((count, size), dtype=np.float32) for count in counts)
    return video, picture


def prompt(case: VideoCase) -> Inputs:
    """Text, the video, text, the image, text."""
    video, picture = patches(case)
    rng = np.random.default_rng(5)
    ids, media = list(rng.integers(0, IMAGE, 6)), []
    steps, height, width = GRID
    parts = [(1, height, width)] * steps if case.is_split else [GRID]
    start = 0
    for shape in parts:
        count = int(np.prod(shape))
        if case.is_split:
            ids += list(rng.integers(0, IMAGE, 3))
        ids.append(START)
        span = (len(ids), len(ids) + count // 4)
        media.append(Media.of("video", video[start : start + count], shape, span, case.seconds))
        ids += [VIDEO] * (count // 4) + [END]
        start += count
    ids += [*rng.integers(0, IMAGE, 2), START]
    media.append(Media.of("image", picture, PICTURE, (len(ids), len(ids) + len(picture) // 4)))
    ids += [IMAGE] * (len(picture) // 4) + [END, *rng.integers(0, IMAGE, 4)]
    return Inputs.of(np.array(ids, np.int32), media)

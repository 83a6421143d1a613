"""Small videos, and rules that they are processed by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vlmkit.processors.video_rules import Times


class VideoCase(NamedTuple):
    """Values of a preprocessor_config.json, and a video's frames, height and width."""

    times: Times
    config: dict[str, Any]
    shape: tuple[int, int, int]


_SIZES: dict[str, Any] = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def _range(least: int, most: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": least, "longest_edge": most}}


CASES = {
    "positions, odd number of frames": VideoCase(
        "positions", _SIZES | _range(64, 4096), (5, 16, 24)
    ),
    "positions, resized": VideoCase("positions", _SIZES | _range(64, 600), (2, 37, 50)),
    "text, as large as allowed": VideoCase("text", _SIZES | _HALF | _range(64, 4096), (4, 16, 24)),
    "text, made smaller": VideoCase("text", _SIZES | _HALF | _range(64, 2000), (5, 37, 50)),
    "text, made larger": VideoCase("text", _SIZES | _HALF | _range(4000, 90000), (3, 6, 9)),
}
SAMPLINGS: tuple[tuple[Times, int, float, float | None, int | None], ...] = (
    # times, frames, frames per second, frames to take of a second, at most
    ("positions", 100, 25.0, None, None),
    ("positions", 7, 30.0, None, None),
    ("positions", 30000, 29.97, None, 64),
    ("positions", 90, 24.0, 1.7, None),
    ("positions", 2, 1.0, 9.0, None),
    ("text", 100, 25.0, None, None),
    ("text", 7, 30.0, None, None),
    ("text", 30000, 29.97, None, 64),
    ("text", 91, 24.0, 1.7, None),
    ("text", 1, 1.0, None, None),
)


def frames(shape: tuple[int, int, int]) -> np.ndarray:
    """Frames ``[T, height, width, 3]``: colours that change slowly, and a moving edge."""
    time, y, x = np.indices(shape)
    red, green = 6 * x + 9 * time, 7 * y + 2 * x
    blue = np.where(x > 3 * time + y, 230, 40)
    return np.stack([red, green, blue], -1).astype(np.uint8)

"""Positions of text, image and sound tokens on the three axes of M-RoPE: time, height, width.

A text token, and one of a sound, has the same position on all axes, one more than everything before
it. An image
starts there too; its tokens count frames, rows and columns from the start. The text behind goes on
after its longer side.

Reference: Wang et al. (2024), "Qwen2-VL", section 2.1, arXiv:2409.12191.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.inputs import Media


def mrope_positions(
    length: int, media: Sequence[Media], *, merge_size: int, video_time_step: int = 1
) -> tuple[NDArray[np.int32], int]:
    """Return the positions of a prompt and the position of the token after it.

    Args:
        length: tokens of the prompt, T.
        media: in order; the shapes of images and videos are (time, height, width) in patches.
        merge_size: patches per side of one token.
        video_time_step: positions between two frames of a video; where it says how many seconds
            lie between them, positions of one second, rounded down per frame.

    Returns:
        Positions int32 ``[3, T]`` and the next position, one above the largest.

    Example:
        >>> image = Media.of("image", np.zeros((8, 1), np.float32), (1, 2, 4), (1, 3))
        >>> positions, after = mrope_positions(4, [image], merge_size=2)
        >>> positions.tolist(), after
        ([[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]], 4)
    """
    parts: list[NDArray[np.int32]] = []
    position, cursor = 0, 0
    for medium in media:
        if medium.kind == "audio":
            continue
        (start, end), (time, height, width) = medium.span, medium.shape
        rows, columns = height // merge_size, width // merge_size
        parts.append(_text(position, start - cursor))
        position += start - cursor
        grid = np.indices((time, rows, columns), dtype=np.int32).reshape(3, end - start)
        if medium.kind == "video":
            grid[0] = _video_times(time, medium.seconds, video_time_step)[grid[0]]
        parts.append(grid + np.int32(position))
        position += max(rows, columns)
        cursor = end
    parts.append(_text(position, length - cursor))
    positions = np.concatenate(parts, axis=1)
    return positions, int(positions.max(initial=-1)) + 1


def _video_times(count: int, seconds: float | None, step: int) -> NDArray[np.int32]:
    # In float32, as transformers counts.
    apart = np.float32(step) * np.float32(1 if seconds is None else seconds)
    return (np.arange(count, dtype=np.float32) * apart).astype(np.int32)


def _text(start: int, count: int) -> NDArray[np.int32]:
    return np.broadcast_to(np.arange(start, start + count, dtype=np.int32), (3, count))

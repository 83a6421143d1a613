"""Positions of text and image tokens on the three axes of M-RoPE: time, height, width.

A text token has the same position on all axes, one more than everything before it. An image
starts there too; its tokens count frames, rows and columns from the start. The text behind goes on
after its longer side.

Reference: Wang et al. (2024), "Qwen2-VL", section 2.1, arXiv:2409.12191.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError
from vlmkit.types import ImageGrid


def mrope_positions(
    token_ids: NDArray[np.int32],
    *,
    grids: Sequence[ImageGrid],
    merge_size: int,
    image_id: int,
    video_id: int,
    video_time_step: int = 1,
) -> tuple[NDArray[np.int32], int]:
    """Return the positions of a prompt and the position of the token after it.

    Args:
        token_ids: int32 ``[T]``; one placeholder per merged patch of an image.
        grids: one per image, in patches, in the order of the prompt.
        merge_size: patches per side of one token.
        image_id: the placeholder of image tokens.
        video_id: the placeholder of video tokens.
        video_time_step: positions between two frames of a video.

    Returns:
        Positions int32 ``[3, T]`` and the next position, one above the largest.

    Raises:
        VlmkitError: the placeholders do not match the grids.

    Example:
        >>> import numpy as np
        >>> ids = np.array([1, 9, 9, 2], np.int32)
        >>> grid = ImageGrid(1, 2, 4)
        >>> positions, after = mrope_positions(
        ...     ids, grids=[grid], merge_size=2, image_id=9, video_id=8
        ... )
        >>> positions.tolist(), after
        ([[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]], 4)
    """
    is_image = (token_ids == image_id) | (token_ids == video_id)
    found = int(is_image.sum())
    merged = [(grid.time, grid.height // merge_size, grid.width // merge_size) for grid in grids]
    expected = sum(t * h * w for t, h, w in merged)
    if expected != found:
        raise VlmkitError(
            f"the prompt has {found} image placeholder tokens, and its {len(grids)} images need "
            f"{expected}; let the processor expand one placeholder per image"
        )
    parts: list[NDArray[np.int32]] = []
    position, cursor, seen, starts = 0, 0, 0, np.flatnonzero(is_image)
    for t, h, w in merged:
        first, count = int(starts[seen]), t * h * w
        if not (token_ids[first : first + count] == token_ids[first]).all():
            raise VlmkitError(f"the {count} placeholders of a {h}x{w} image are not in one row")
        parts.append(_text(position, first - cursor))
        position += first - cursor
        grid = np.indices((t, h, w), dtype=np.int32).reshape(3, count)
        if token_ids[first] == video_id:
            grid[0] *= video_time_step
        parts.append(grid + np.int32(position))
        position += max(h, w)
        cursor, seen = first + count, seen + count
    parts.append(_text(position, len(token_ids) - cursor))
    positions = np.concatenate(parts, axis=1)
    return positions, int(positions.max(initial=-1)) + 1


def _text(start: int, count: int) -> NDArray[np.int32]:
    return np.broadcast_to(np.arange(start, start + count, dtype=np.int32), (3, count))

"""Which patches attend to each other, and where each of them lies: host-side, in numpy.

Patches arrive frame by frame, and within a frame by merge block: the ``merge_size**2`` patches
of one token are neighbours in memory.

Reference: Wang et al. (2024), arXiv:2409.12191, and, for windows, Bai et al. (2025),
arXiv:2502.13923.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.inputs import ImageGrid

Segments = tuple[tuple[int, int], ...]
"""Runs of (number of segments, patches per segment): a batch of equal attention problems each."""


class VisionLayout(NamedTuple):
    """How the patches of a batch of images are laid out."""

    coordinates: NDArray[np.int32]  # [N, 2] row and column of each patch, in processing order
    frames: Segments  # full attention: one segment per frame
    windows: Segments  # window attention; the frames where there are no windows
    token_order: NDArray[np.int32] | None  # [N / merge**2] merge blocks in processing order


def vision_layout(
    grids: Sequence[ImageGrid], *, merge_size: int, window_tokens: int | None
) -> VisionLayout:
    """Lay out the patches of several images.

    Windows tile each frame from the top left; those at the right and bottom edges may be smaller.
    Within a frame, windows of equal size come together, so that they form one batch.

    Args:
        grids: one per image.
        merge_size: patches per side of one token.
        window_tokens: tokens per side of a window; None for no windows.

    Example:
        >>> vision_layout([ImageGrid(1, 4, 6)], merge_size=2, window_tokens=2).windows
        ((1, 16), (1, 8))
    """
    coordinates, order, sizes, offset = [], [], [], 0
    for grid in grids:
        rows, columns = grid.height // merge_size, grid.width // merge_size
        block = _coordinates(rows, columns, merge_size)
        if window_tokens is None:
            coordinates.append(np.tile(block.reshape(-1, 2), (grid.time, 1)))
            continue
        frame_order, frame_sizes = _windows(rows, columns, window_tokens)
        for frame in range(grid.time):
            order.append(frame_order + offset + frame * rows * columns)
            sizes.extend(frame_sizes)
            coordinates.append(block[frame_order].reshape(-1, 2))
        offset += grid.time * rows * columns
    frames = _runs([grid.height * grid.width for grid in grids for _ in range(grid.time)])
    return VisionLayout(
        coordinates=np.concatenate(coordinates),
        frames=frames,
        windows=_runs([size * merge_size**2 for size in sizes]) if order else frames,
        token_order=np.concatenate(order).astype(np.int32) if order else None,
    )


class Corners(NamedTuple):
    """The four points of a square grid around each patch."""

    places: NDArray[np.int32]  # [N, 4], row by row
    weights: NDArray[np.float32]  # [N, 4]


def resample_grid(coordinates: NDArray[np.int32], grids: Sequence[ImageGrid], side: int) -> Corners:
    """Lay each image over a square grid, corner to corner, and find the points around a patch.

    The weights are bilinear.

    Args:
        coordinates: ``[N, 2]`` row and column of each patch, image after image.
        grids: one per image.
        side: points per side of the square grid.

    Example:
        >>> found = resample_grid(np.array([[0, 0], [0, 1]], np.int32), [ImageGrid(1, 1, 2)], 3)
        >>> found.places[1].tolist(), found.weights[1].tolist()
        ([2, 2, 5, 5], [1.0, 0.0, 0.0, 0.0])
    """
    sizes = np.array([[grid.height, grid.width] for grid in grids], np.int32)
    counts = [grid.time * grid.height * grid.width for grid in grids]
    steps = np.maximum(np.repeat(sizes, counts, axis=0) - 1, 1).astype(np.float32)
    points = coordinates.astype(np.float32) * np.float32(side - 1) / steps
    low = np.floor(points)
    (row, column), (down, right) = low.astype(np.int32).T, (points - low).T
    below, beside = np.minimum(row + 1, side - 1), np.minimum(column + 1, side - 1)
    places = [
        row * side + column,
        row * side + beside,
        below * side + column,
        below * side + beside,
    ]
    weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    return Corners(np.stack(places, axis=1), np.stack(weights, axis=1).astype(np.float32))


def _coordinates(rows: int, columns: int, merge: int) -> NDArray[np.int32]:
    """Row and column of each patch, ``[rows * columns, merge**2, 2]``: block by block."""
    grid = np.indices((rows * merge, columns * merge), dtype=np.int32)
    blocks = grid.reshape(2, rows, merge, columns, merge).transpose(1, 3, 2, 4, 0)
    return blocks.reshape(rows * columns, merge * merge, 2)


def _windows(rows: int, columns: int, side: int) -> tuple[NDArray[np.int32], list[int]]:
    """Order the tokens of a frame by window, and return the windows' sizes in tokens."""
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    windows = [
        index[top : top + side, left : left + side].reshape(-1)
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]
    windows.sort(key=len, reverse=True)
    return np.concatenate(windows), [len(window) for window in windows]


def _runs(lengths: Sequence[int]) -> Segments:
    return tuple((len(list(run)), length) for length, run in groupby(lengths))

"""Several arrays of one medium as the one that :class:`vlmkit.contracts.inputs.Media` holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError

PARTS = (
    "pixel_values",
    "pixel_attention_mask",
    "image_sizes",
    "spatial_shapes",
    "patch_attention_mask",
    "image_num_crops",
    "aspect_ratio_ids",
    "aspect_ratio_mask",
    "num_crops",
    "num_patches",
    "target_sizes",
    "tgt_sizes",
    "image_grid_hws",
    "image_grid_thw",
    "image_flags",
)
"""What processors of transformers and mlx-vlm call what they give of an image; the order counts."""

_DTYPES = (np.float32, np.int32, np.bool_)


class Packed(NamedTuple):
    """Arrays in one, and how to take them apart."""

    data: NDArray[np.float32]  # flat
    shape: tuple[int, ...]  # per array: its name's place in PARTS, its dtype's, ndim, dimensions


def pack_parts(parts: Mapping[str, object]) -> Packed:
    """Put arrays into one of float32.

    Raises:
        VlmkitError: a name that is not in ``PARTS``, or whole numbers that float32 cannot hold.

    Example:
        >>> packed = pack_parts({"pixel_values": np.ones((2, 2)), "image_sizes": [[14, 28]]})
        >>> {name: part.tolist() for name, part in unpack_parts(*packed).items()}
        {'pixel_values': [[1.0, 1.0], [1.0, 1.0]], 'image_sizes': [[14, 28]]}
    """
    flat: list[NDArray[np.float32]] = []
    shape: list[int] = []
    for name, value in parts.items():
        if name not in PARTS:
            raise VlmkitError(f"what a processor gives as {name!r} is not known here")
        array = np.asarray(value)
        code = {"f": 0, "b": 2}.get(array.dtype.kind, 1)
        as_floats = array.astype(np.float32)
        if code == 1 and not np.array_equal(as_floats.astype(np.int64), array):
            raise VlmkitError(f"{name}: a number in it is too large")
        shape += [PARTS.index(name), code, array.ndim, *array.shape]
        flat.append(as_floats.reshape(-1))
    return Packed(np.concatenate(flat), tuple(shape))


def unpack_parts(data: NDArray[np.float32], shape: Sequence[int]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays by name, as :func:`pack_parts` was given them."""
    found: dict[str, NDArray[np.generic]] = {}
    start, left = 0, list(shape)
    while left:
        place, code, ndim = left[:3]
        sizes, left = left[3 : 3 + ndim], left[3 + ndim :]
        end = start + math.prod(sizes)
        found[PARTS[place]] = data[start:end].reshape(sizes).astype(_DTYPES[code])
        start = end
    return found

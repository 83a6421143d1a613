"""What oracles take of a prompt's images: all patches, and a grid per image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.inputs import Inputs, Media


def patches_of(inputs: Inputs) -> NDArray[np.float32]:
    """The patches of all images, one after the other."""
    return np.concatenate([medium.data for medium in inputs.media])


def grids_of(inputs: Inputs) -> list[tuple[int, ...]]:
    """(time, height, width) of each image, in patches."""
    return [tuple(medium.shape) for medium in inputs.media]


def with_patches(inputs: Inputs, patches: NDArray[np.float32]) -> Inputs:
    """The same prompt with other patches in its only image."""
    (medium,) = inputs.media
    return Inputs.of(inputs.token_ids, [Media.of(medium.kind, patches, medium.shape, medium.span)])

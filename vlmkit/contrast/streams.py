"""Other prompts made from a prompt's own inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.inputs import Inputs
from vlmkit.errors import VlmkitError


class StreamMarkers(NamedTuple):
    """What a model's prompts look like around images."""

    encode: Callable[[str], Sequence[int]]  # text -> token ids, no special ones
    placeholder_ids: frozenset[int]  # ids that stand for visual tokens
    start_ids: frozenset[int]  # ids that open an image, such as <|vision_start|>
    end_ids: frozenset[int]  # ids that close it, such as <|vision_end|>
    patch_shape: tuple[int, int, int]  # (channels, frames, size) of one row of patches


def has_images(inputs: Inputs, markers: StreamMarkers) -> bool:
    """Say whether a prompt has visual tokens."""
    return bool(_is_visual(inputs, markers).any())


def without_images(inputs: Inputs, markers: StreamMarkers, *, kind: str) -> Inputs:
    """Return the prompt without its images and the ids that wrap them.

    Start and end ids that wrap no image stay.

    Args:
        kind: the method, for error messages.

    Raises:
        VlmkitError: the prompt has no image, or nothing else.

    Example:
        >>> markers = StreamMarkers(lambda text: (), frozenset({9}), {7}, {8}, (3, 2, 14))
        >>> prompt = Inputs.of(np.array([1, 7, 9, 9, 8, 2, 7], np.int32))
        >>> without_images(prompt, markers, kind="m3id").token_ids.tolist()
        [1, 2, 7]
    """
    visual = _is_visual(inputs, markers)
    if not visual.any():
        raise VlmkitError(
            f"{kind}: the prompt has no image to leave out; give it one, or use cfg with a"
            " negative_prompt"
        )
    ids = inputs.token_ids
    opens = np.isin(ids, list(markers.start_ids)) & np.append(visual[1:], False)
    closes = np.isin(ids, list(markers.end_ids)) & np.append(False, visual[:-1])
    kept = ids[~(visual | opens | closes)]
    if not len(kept):
        raise VlmkitError(f"{kind}: nothing remains of the prompt without its images; add a text")
    return Inputs.of(kept)


def end_of_images(inputs: Inputs, markers: StreamMarkers) -> int | None:
    """Return the index after the last image and its end id; None where there is no image.

    Example:
        >>> markers = StreamMarkers(lambda text: (), frozenset({9}), {7}, {8}, (3, 2, 14))
        >>> end_of_images(Inputs.of(np.array([1, 7, 9, 9, 8, 2], np.int32)), markers)
        5
    """
    places = np.flatnonzero(_is_visual(inputs, markers))
    if not len(places):
        return None
    after = int(places[-1]) + 1
    closed = after < len(inputs.token_ids) and int(inputs.token_ids[after]) in markers.end_ids
    return after + closed


def _is_visual(inputs: Inputs, markers: StreamMarkers) -> NDArray[np.bool_]:
    return np.isin(inputs.token_ids, list(markers.placeholder_ids))

"""Images whose own processor says which tokens stand for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.contracts.packed_parts import pack_parts
from vlmkit.errors import within
from vlmkit.processors.processor import Expanded


def expand_images(
    token_ids: Sequence[int],
    placeholder: int,
    images: Sequence[Image.Image],
    expand: Callable[[Image.Image], Expanded],
) -> Inputs:
    """Put the tokens of each image in its placeholder's place.

    Args:
        token_ids: of the prompt, with one placeholder per image.
        placeholder: the id that stands for an image, and for each of its vectors.
        images: in the order of the placeholders.
        expand: gives an image's tokens and pixels.

    Example:
        >>> found = Expanded((1, 9, 9, 2), {"pixel_values": np.zeros((1, 3, 2, 2))})
        >>> inputs = expand_images([5, 9, 6], 9, [Image.new("RGB", (2, 2))], lambda _: found)
        >>> inputs.token_ids.tolist(), inputs.media[0].span, inputs.media[0].data.shape
        ([5, 1, 9, 9, 2, 6], (1, 5), (12,))
    """
    ids: list[int] = []
    media: list[Media] = []
    for token_id in token_ids:
        if token_id != placeholder:
            ids.append(token_id)
            continue
        with within("images", len(media)):
            found = expand(images[len(media)])
        span = (len(ids), len(ids) + len(found.token_ids))
        data, shape = pack_parts(found.parts)
        shape = (found.token_ids.count(placeholder), *shape)
        media.append(Media.of("image", data, shape, span))
        ids += found.token_ids
    return Inputs.of(np.array(ids, np.int32), media)

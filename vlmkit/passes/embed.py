"""The embed stage: prompts become vectors; each medium is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmkit.contracts.inputs import Embeddings, Inputs
from vlmkit.contracts.interface import Features, Model


def encode_media(
    model: Model,
    batch: Sequence[Inputs],
    starts: Sequence[int] | None = None,
    known: Mapping[bytes, Features] | None = None,
) -> dict[bytes, Features]:
    """Encode what the prompts show beyond their starts, by digest; equal media are encoded once.

    Args:
        model: the model's functions.
        batch: B prompts.
        starts: tokens of each row that are not wanted; None = nothing.
        known: media that were encoded before.
    """
    starts = (0,) * len(batch) if starts is None else starts
    wanted = {
        medium.digest: medium
        for inputs, start in zip(batch, starts, strict=True)
        for medium in inputs.media
        if medium.span[1] > start
    }
    found = {digest: known[digest] for digest in wanted if digest in known} if known else {}
    new = [medium for digest, medium in wanted.items() if digest not in found]
    encoded = model.encode(new) if new else ()
    return {**found, **{m.digest: one for m, one in zip(new, encoded, strict=True)}}


def embed_prompts(
    model: Model, batch: Sequence[Inputs], starts: Sequence[int] | None = None
) -> Embeddings:
    """Encode the prompts' media and lay the prompts out as one right-padded batch of vectors.

    Args:
        model: the model's functions.
        batch: B prompts.
        starts: leave out so many tokens of each row; None = nothing.

    Example:
        >>> import numpy as np
        >>> from vlmkit import load
        >>> model, _ = load("shapes")
        >>> embed_prompts(model, [Inputs.of(np.array([5, 6, 7], np.int32))]).lengths
        (3,)
    """
    return model.embed(batch, encode_media(model, batch, starts), starts)

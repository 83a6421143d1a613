"""Prefill: run whole prompts through the decoder, chunk by chunk."""

from __future__ import annotations

import mlx.core as mx
from pydantic import Field

from vlmkit.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.types import Cache, DecodeState, Embeddings, Model, Span


class PrefillConfig(StageConfig):
    """How prompts are run through the model."""

    step_size: Int = Field(
        2048, ge=1, description="Tokens per forward pass; smaller needs less memory."
    )


def prefill(
    model: Model, embeddings: Embeddings, cache: Cache, *, step_size: int
) -> tuple[DecodeState, mx.array]:
    """Add prompts to a cache and return the logits that follow each of them.

    Every chunk is evaluated before the next starts, so at most one chunk of activations is alive,
    and only each row's last token is projected to the vocabulary. The result does not depend on
    ``step_size`` beyond float rounding.

    Args:
        model: the model's functions.
        embeddings: B new pieces of prompt, padded on the right.
        cache: what the rows hold so far: empty, or a prefix that the pieces continue.
        step_size: tokens per forward pass, >= 1.

    Returns:
        The state after the prompts, evaluated, and the logits [B, V] of each row's last token.

    Raises:
        VlmkitError: a row brings no tokens.
    """
    lengths, total = embeddings.lengths, embeddings.hidden.shape[1]
    if min(lengths) < 1:
        row = lengths.index(min(lengths))
        raise VlmkitError(f"prompt {row} has no tokens; it needs at least one")
    last: dict[int, mx.array] = {}
    for start in range(0, max(lengths), step_size):
        width = min(step_size, total - start)
        chunk = slice(start, start + width)
        num_new = tuple(min(max(length - start, 0), width) for length in lengths)
        hidden, cache = model.forward(
            embeddings.hidden[:, chunk],
            embeddings.positions[:, :, chunk],
            cache,
            Span(starts=cache.lengths, lengths=num_new, width=width),
        )
        for row, length in enumerate(lengths):
            if start < length <= start + width:
                last[row] = hidden[row, length - 1 - start]
        mx.eval(cache.layers, last)
        del hidden
        if start + width < total:
            mx.clear_cache()
    logits = model.logits(mx.stack([last[row] for row in range(len(lengths))]))
    return DecodeState(cache, embeddings.next_positions), logits

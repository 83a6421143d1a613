"""Prefill: run whole prompts through the decoder, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from pydantic import Field

from vlmkit.contracts.inputs import Embeddings
from vlmkit.contracts.interface import Cache, DecodeState, Hidden, Model, Span
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError


class PrefillConfig(StageConfig):
    """How prompts are run through the model."""

    step_size: Int = Field(
        2048, ge=1, description="Tokens per forward pass; smaller needs less memory."
    )


def prefill(
    model: Model, embeddings: Embeddings, cache: Cache, *, step_size: int
) -> tuple[DecodeState, mx.array]:
    """Add prompts to a cache and return the logits that follow each of them.

    A block of tokens that see each other is not cut; a chunk may be longer for it. Every chunk is
    evaluated before the next starts, so at most one chunk of activations is alive, and only each
    row's last token is projected to the vocabulary. The result does not depend on ``step_size``
    beyond float rounding.

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
    state, hidden = prefill_hidden(model, embeddings, cache, step_size=step_size)
    return state, model.logits(hidden.final)


def prefill_hidden(
    model: Model,
    embeddings: Embeddings,
    cache: Cache,
    *,
    step_size: int,
    taps: Sequence[int] = (),
    keep_prompt: bool = False,
) -> tuple[DecodeState, Hidden]:
    """Do :func:`prefill` up to the head: the state and the hidden states of the last tokens.

    Args:
        model: the model's functions.
        embeddings: B new pieces of prompt, padded on the right.
        cache: what the rows hold so far.
        step_size: tokens per forward pass, >= 1.
        taps: layers whose input is wanted too.
        keep_prompt: also return the final hidden states of all tokens of these pieces.

    Raises:
        VlmkitError: a row brings no tokens, or the model's layers cannot be read.
    """
    lengths, total = embeddings.lengths, embeddings.piece.hidden.shape[1]
    if min(lengths) < 1:
        row = lengths.index(min(lengths))
        raise VlmkitError(f"prompt {row} has no tokens; it needs at least one")
    last: dict[int, tuple[mx.array, ...]] = {}
    kept: list[mx.array] = []
    layers: tuple[mx.array, ...] = ()
    for start, stop in cuts(embeddings.piece.blocks, total, step_size):
        if start >= max(lengths):
            break
        width = stop - start
        num_new = tuple(min(max(length - start, 0), width) for length in lengths)
        span = Span(starts=cache.lengths, lengths=num_new, width=width)
        output = model.forward(embeddings.piece.slice(start, stop), cache, span, taps)
        cache = output.cache
        for row, length in enumerate(lengths):
            if start < length <= start + width:
                layers = (output.hidden, *output.taps)
                last[row] = tuple(layer[row, length - 1 - start] for layer in layers)
        if keep_prompt:
            kept.append(output.hidden)
        mx.eval(cache.layers, last, kept)
        layers = ()
        del output
        if start + width < total:
            mx.clear_cache()
    vectors = zip(*(last[row] for row in range(len(lengths))), strict=True)
    final, *tapped = (mx.stack(list(rows)) for rows in vectors)
    prompt = mx.concatenate(kept, axis=1) if keep_prompt else None
    return DecodeState(cache, embeddings.next_positions), Hidden(final, tuple(tapped), prompt)


def cuts(blocks: mx.array | None, total: int, step_size: int) -> list[tuple[int, int]]:
    """Divide tokens into chunks, each as long as may be without cutting a block.

    Args:
        blocks: int32 ``[B, L]``: neighbours of one number >= 0 stay together; None: no blocks.
        total: L.
        step_size: tokens of a chunk, unless a block needs more.

    Example:
        >>> cuts(mx.array([[-1, 0, 0, 0, -1]]), 5, 2)
        [(0, 1), (1, 4), (4, 5)]
    """
    joined = np.zeros(total, np.bool_)  # place i stays with place i - 1
    if blocks is not None:
        found = np.array(blocks)
        joined[1:] = ((found[:, 1:] == found[:, :-1]) & (found[:, 1:] >= 0)).any(axis=0)
    free = [*np.flatnonzero(~joined).tolist(), total]
    chunks, start = [], 0
    while start < total:
        behind = [place for place in free if place > start]
        stop = max((place for place in behind if place <= start + step_size), default=behind[0])
        chunks.append((start, stop))
        start = stop
    return chunks

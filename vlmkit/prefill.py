"""Prefill: run whole prompts through the decoder, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import mlx.core as mx
from pydantic import Field

from vlmkit.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.types import Cache, DecodeState, Embeddings, Hidden, Model, Span


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
    state, hidden = prefill_hidden(model, embeddings, cache, step_size=step_size)
    return state, model.logits(hidden.final)


def prefill_hidden(
    model: Model,
    embeddings: Embeddings,
    cache: Cache,
    *,
    step_size: int,
    early_layers: Sequence[int] = (),
    keep_prompt: bool = False,
) -> tuple[DecodeState, Hidden]:
    """Do :func:`prefill` up to the head: the state and the hidden states of the last tokens.

    Args:
        model: the model's functions.
        embeddings: B new pieces of prompt, padded on the right.
        cache: what the rows hold so far.
        step_size: tokens per forward pass, >= 1.
        early_layers: layers whose input is wanted too.
        keep_prompt: also return the final hidden states of all tokens of these pieces.

    Raises:
        VlmkitError: a row brings no tokens, or the model's layers cannot be read.
    """
    lengths, total = embeddings.lengths, embeddings.hidden.shape[1]
    if min(lengths) < 1:
        row = lengths.index(min(lengths))
        raise VlmkitError(f"prompt {row} has no tokens; it needs at least one")
    last: dict[int, tuple[mx.array, ...]] = {}
    kept: list[mx.array] = []
    for start in range(0, max(lengths), step_size):
        width = min(step_size, total - start)
        chunk = slice(start, start + width)
        num_new = tuple(min(max(length - start, 0), width) for length in lengths)
        span = Span(starts=cache.lengths, lengths=num_new, width=width)
        inputs = embeddings.hidden[:, chunk], embeddings.positions[:, :, chunk]
        early: tuple[mx.array, ...] = ()
        if early_layers:
            hidden, early, cache = model.forward_early(*inputs, cache, span, early_layers)
        else:
            hidden, cache = model.forward(*inputs, cache, span)
        for row, length in enumerate(lengths):
            if start < length <= start + width:
                last[row] = tuple(layer[row, length - 1 - start] for layer in (hidden, *early))
        if keep_prompt:
            kept.append(hidden)
        mx.eval(cache.layers, last, kept)
        del hidden, early
        if start + width < total:
            mx.clear_cache()
    layers = zip(*(last[row] for row in range(len(lengths))), strict=True)
    final, *taps = (mx.stack(list(vectors)) for vectors in layers)
    prompt = mx.concatenate(kept, axis=1) if keep_prompt else None
    return DecodeState(cache, embeddings.next_positions), Hidden(final, tuple(taps), prompt)


def prefill_branches(
    model: Model,
    embeddings: Embeddings,
    new_cache: Callable[[int], Cache],
    *,
    branch: Callable[[Cache, Sequence[int]], Cache],
    step_size: int,
    early_layers: Sequence[int] = (),
    keep_prompt: bool = False,
) -> tuple[DecodeState, Hidden]:
    """Prefill prompts that begin alike: what they share runs once, then the state is branched.

    Args:
        model: the model's functions.
        embeddings: B whole prompts.
        new_cache: an empty cache for a number of rows.
        branch: select rows of a cache, with repetition.
        step_size: tokens per forward pass, >= 1.
        early_layers: layers whose input is wanted too.
        keep_prompt: also return the final hidden states of all tokens of the first prompt.

    Returns:
        What :func:`prefill_hidden` returns; ``prompt`` is [1, T, hidden] of the first prompt.
    """
    batch = len(embeddings.lengths)
    num_shared = shared_length(embeddings)
    if num_shared == 0:
        cache, shared = new_cache(batch), []
    else:
        head = Embeddings(
            embeddings.hidden[:1, :num_shared],
            embeddings.positions[:, :1, :num_shared],
            (num_shared,),
            (0,),
        )
        state, hidden = prefill_hidden(
            model, head, new_cache(1), step_size=step_size, keep_prompt=keep_prompt
        )
        cache = branch(state.cache, (0,) * batch)
        shared = [hidden.prompt] if hidden.prompt is not None else []
        del state
    rest = Embeddings(
        embeddings.hidden[:, num_shared:],
        embeddings.positions[:, :, num_shared:],
        tuple(length - num_shared for length in embeddings.lengths),
        embeddings.next_positions,
    )
    state, hidden = prefill_hidden(
        model, rest, cache, step_size=step_size, early_layers=early_layers, keep_prompt=keep_prompt
    )
    if hidden.prompt is None:
        return state, hidden
    own = hidden.prompt[:1, : rest.lengths[0]]
    return state, hidden._replace(prompt=mx.concatenate([*shared, own], axis=1))


def shared_length(embeddings: Embeddings) -> int:
    """Return how many embedded tokens all prompts begin with; each keeps at least one of its own.

    Example:
        >>> hidden = mx.array([[[1.0], [2.0], [3.0]], [[1.0], [2.0], [4.0]]])
        >>> positions = mx.zeros((1, 2, 3), mx.int32)
        >>> shared_length(Embeddings(hidden, positions, (3, 3), (3, 3)))
        2
    """
    own = min(embeddings.lengths) - 1
    if own < 1:
        return 0
    hidden, positions = embeddings.hidden[:, :own], embeddings.positions[:, :, :own]
    equal = mx.all(hidden == hidden[:1], axis=(0, 2)) & mx.all(
        positions == positions[:, :1], axis=(0, 1)
    )
    return own if mx.all(equal).item() else cast(int, mx.argmin(equal).item())

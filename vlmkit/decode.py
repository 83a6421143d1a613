"""The decode step: one token per row in, the logits of the next one out."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.types import DecodeState, Model, Span


def decode_step(
    model: Model, state: DecodeState, token_ids: mx.array
) -> tuple[DecodeState, mx.array]:
    """Append one token to every row and return the logits that follow.

    Only builds the graph: lengths and positions are host integers, so nothing waits for the
    device. The state passed in stays valid; drop it before evaluating and the caches are extended
    in place, keep it and they are copied (a branch).

    Args:
        model: the model's functions.
        state: B rows.
        token_ids: int32 [B], the token that each row takes.

    Returns:
        The next state and the logits [B, V].
    """
    cache, batch = state.cache, len(state.next_positions)
    positions = mx.array(state.next_positions, mx.int32)[None, :, None]
    hidden, cache = model.forward(
        model.embed_tokens(token_ids[:, None]),
        mx.broadcast_to(positions, (model.num_position_axes, batch, 1)),
        cache,
        Span(starts=cache.lengths, lengths=(1,) * batch, width=1),
    )
    next_positions = tuple(position + 1 for position in state.next_positions)
    return DecodeState(cache, next_positions), model.logits(hidden[:, 0])

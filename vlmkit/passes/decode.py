"""The decode step: one token per row in, the logits of the next one out."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from vlmkit.contracts.inputs import Piece
from vlmkit.contracts.interface import DecodeState, Hidden, Model, Span


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
    state, hidden = decode_hidden(model, state, token_ids)
    return state, model.logits(hidden.final)


def decode_hidden(
    model: Model, state: DecodeState, token_ids: mx.array, *, taps: Sequence[int] = ()
) -> tuple[DecodeState, Hidden]:
    """Do :func:`decode_step` up to the head: the next state and the tokens' hidden states.

    Args:
        model: the model's functions.
        state: B rows.
        token_ids: int32 [B], the token that each row takes.
        taps: layers whose input is wanted too.

    Raises:
        VlmkitError: the model's layers cannot be read.
    """
    cache, batch = state.cache, len(state.next_positions)
    # A generated token has the same position on all axes, so one axis is enough.
    positions = mx.array(state.next_positions, mx.int32)[None, :, None]
    span = Span(starts=cache.lengths, lengths=(1,) * batch, width=1)
    piece = Piece(model.embed_tokens(token_ids[:, None]), positions)
    output = model.forward(piece, cache, span, taps)
    next_positions = tuple(position + 1 for position in state.next_positions)
    hidden = Hidden(output.hidden[:, 0], tuple(layer[:, 0] for layer in output.taps))
    return DecodeState(output.cache, next_positions), hidden

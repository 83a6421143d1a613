"""The decode states behind the rows of a batch, and the logits that come out of them.

All rows of a batch are contrasted by one method, or by none, so each has the same number of
streams: its own, and those that the method compares it with. They are neighbours in the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.contracts.interface import DecodeState, Hidden, Model
from vlmkit.numeric.probabilities import entropy, log_softmax
from vlmkit.passes.decode import decode_hidden
from vlmkit.prompts import select_state
from vlmkit.prompts.prefill import join_states
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import Sections, apply_hosts


class Streams(NamedTuple):
    """The states of B rows: row b has the places from ``b * n`` to ``b * n + n - 1`` of each."""

    own: DecodeState  # n = num_own
    amateur: DecodeState | None = None  # n = num_others


class StreamLogits(NamedTuple):
    """What the models say of each row's next token."""

    own: mx.array  # float32 [B, V]
    others: mx.array | None  # float32 [B, N, V], of what the row is contrasted with
    hidden: mx.array  # [B, hidden], of the row's own stream


class RowLogits(NamedTuple):
    """What each row's next token is drawn from."""

    own: mx.array  # float32 [B, V], of the row's own stream
    combined: mx.array  # float32 [B, V], after contrast; the same object where there is none
    hidden: mx.array  # [B, hidden], of the row's own stream
    doubts: mx.array | None = None  # float32 [B, 2]: entropy and confidence of ``own``, where read


def step_streams(
    method: Method, streams: Streams, token_ids: mx.array
) -> tuple[Streams, StreamLogits]:
    """Build the graph of one forward pass per model, each row taking its token int32 [B]."""
    own, hidden = _step(method.model, streams.own, token_ids, method.num_own, method.taps)
    if method.amateur is None or streams.amateur is None:
        return Streams(own), read_logits(method, hidden, None)
    second, other = _step(method.amateur, streams.amateur, token_ids, method.num_others, ())
    return Streams(own, second), read_logits(method, hidden, other)


def _step(
    model: Model, state: DecodeState, token_ids: mx.array, num_streams: int, taps: Sequence[int]
) -> tuple[DecodeState, Hidden]:
    tokens = token_ids if num_streams == 1 else mx.repeat(token_ids, num_streams)
    return decode_hidden(model, state, tokens, taps=taps)


def read_logits(method: Method, own: Hidden, amateur: Hidden | None) -> StreamLogits:
    """Project the streams' hidden states to logits."""
    count = method.num_own
    logits = method.model.logits(own.final).astype(mx.float32)
    if count == 1:
        final, mine, others = own.final, logits, None
    else:
        by_row = logits.reshape(-1, count, logits.shape[-1])
        mine, others = by_row[:, 0], by_row[:, 1:]
        final = own.final.reshape(-1, count, own.final.shape[-1])[:, 0]
    contrast = method.contrast
    if contrast is not None and contrast.early_layers:
        tapped = dict(zip(method.taps, own.taps, strict=True))
        early = mx.stack([tapped[layer] for layer in contrast.early_layers], axis=1)
        others = method.model.logits(early).astype(mx.float32)
    if amateur is not None:
        assert method.amateur is not None
        theirs = method.amateur.logits(amateur.final).astype(mx.float32)
        others = theirs.reshape(mine.shape[0], -1, theirs.shape[-1])
        mine, others = _same_vocabulary(mine, others)
    return StreamLogits(mine, others, final)


def combine(
    method: Method, sections: Sections, logits: StreamLogits, num_tokens: Sequence[int]
) -> mx.array:
    """Contrast each row's streams: float32 ``[B, V]``.

    A method keeps what is plausible beside the most likely token. Where a grammar rules that token
    out, the cut is to be taken among those that are left, or it could leave none of them; so all
    streams are restricted first to what the host reducers of the row's chain allow.

    Args:
        method: of the batch.
        sections: of the batch, with the hosts' values set.
        logits: of the batch.
        num_tokens: tokens generated per row.
    """
    if method.contrast is None or logits.others is None:
        return logits.own
    own, others = apply_hosts(sections, logits.own), logits.others
    if own is not logits.own:
        others = mx.where(own[:, None] == -mx.inf, -mx.inf, others)
    return method.contrast.combine(own, others, mx.array(list(num_tokens), mx.int32))


def select_streams(method: Method, streams: Streams, rows: Sequence[int]) -> Streams:
    """Keep these rows, in this order; a row may come twice (a branch)."""

    def places(count: int) -> list[int]:
        return [row * count + stream for row in rows for stream in range(count)]

    amateur = streams.amateur
    return Streams(
        select_state(streams.own, places(method.num_own)),
        None if amateur is None else select_state(amateur, places(method.num_others)),
    )


def join_streams(first: Streams, second: Streams) -> Streams:
    """Append the rows of ``second``."""
    both = [one for one in (first.amateur, second.amateur) if one is not None]
    return Streams(join_states([first.own, second.own]), join_states(both) if both else None)


def read_doubts(logits: mx.array) -> mx.array:
    """Entropy in nats and largest probability of each row, float32 ``[B, 2]``."""
    logprobs = log_softmax(logits)
    largest = mx.exp(mx.max(logprobs, axis=-1, keepdims=True))
    return mx.concatenate([entropy(logprobs), largest], axis=-1)


def select_logits(logits: RowLogits, rows: Sequence[int]) -> RowLogits:
    """Keep these rows, in this order."""
    index = mx.array(list(rows))
    own, doubts = logits.own[index], logits.doubts
    combined = own if logits.combined is logits.own else logits.combined[index]
    doubts = None if doubts is None else doubts[index]
    return RowLogits(own, combined, logits.hidden[index], doubts)


def join_logits(first: RowLogits, second: RowLogits) -> RowLogits:
    """Append the rows of ``second``."""
    own = mx.concatenate([first.own, second.own])
    plain = first.own is first.combined and second.own is second.combined
    doubts = None
    if first.doubts is not None or second.doubts is not None:
        parts = [
            read_doubts(one.own) if one.doubts is None else one.doubts for one in (first, second)
        ]
        doubts = mx.concatenate(parts)
    return RowLogits(
        own,
        own if plain else mx.concatenate([first.combined, second.combined]),
        mx.concatenate([first.hidden, second.hidden]),
        doubts,
    )


def _same_vocabulary(own: mx.array, others: mx.array) -> tuple[mx.array, mx.array]:
    """Give both the width of ``own``; ids that the others don't have can't be drawn.

    Checkpoints pad their vocabulary to different sizes; no token has those ids.
    """
    size, theirs = own.shape[-1], others.shape[-1]
    if theirs > size:
        return own, others[..., :size]
    if theirs < size:
        others = mx.pad(others, [(0, 0), (0, 0), (0, size - theirs)], constant_values=-mx.inf)
        own = mx.where(mx.arange(size) < theirs, own, -mx.inf)
    return own, others

"""Where the history repeats itself: how long a suffix ends at each earlier place.

Let ``match[j]`` be the number of tokens up to and with place j that equal the last tokens of the
history. Appending token t gives ``match'[j] = match[j − 1] + 1`` where place j holds t, else 0:
one step costs a few operations on the window, and no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.sampling.history import (
    align_right,
    append_window,
    counted,
    is_counted,
    is_full,
    widen,
)


class SuffixMatchState(NamedTuple):
    """The last W tokens and their matches. W grows with each token up to the window's size."""

    window: mx.array  # int32 [B, W]; the newest last, -1 where there is none yet
    match: mx.array  # int32 [B, W], inside the window; the newest token's own place holds 0, an
    # empty one 0 or -1


def init_suffix_match(
    prompts: Sequence[NDArray[np.int32]],
    size: int | None,
    vocab_size: int,
    excluded_ids: Sequence[int] = (),
    breaker_ids: Sequence[int] = (),
) -> SuffixMatchState:
    """Start from the last ``size`` tokens of the prompts, or all; none matches across a breaker."""
    rows = [
        counted(np.asarray(prompt, dtype=np.int32), vocab_size, excluded_ids)[-(size or 0) :]
        for prompt in prompts
    ]
    matches = [_matches(ids.tolist(), frozenset(breaker_ids)) for ids in rows]
    return SuffixMatchState(align_right(rows, size), align_right(matches, size))


def _matches(ids: Sequence[int], breaker_ids: frozenset[int]) -> NDArray[np.int32]:
    """Return for each place how many tokens up to and with it equal the last ones.

    The Z function of the reversed tokens, in linear time (Gusfield, "Algorithms on strings, trees,
    and sequences", 1997, section 1.4), cut at the last breaker.
    """
    back = ids[::-1]
    bound = next((place for place, i in enumerate(back) if i in breaker_ids), len(back))
    found = [0] * len(back)
    begin = end = 0  # back[begin:end] equals back[:end - begin], with the largest end so far
    for place in range(1, len(back)):
        length = min(found[place - begin], end - place) if place < end else 0
        while place + length < len(back) and back[length] == back[place + length]:
            length += 1
        found[place] = length
        if place + length > end:
            begin, end = place, place + length
    return np.minimum(found[::-1], bound).astype(np.int32)


def append_suffix_match(
    state: SuffixMatchState,
    token_ids: mx.array,
    size: int | None,
    excluded_ids: Sequence[int] = (),
    breaker_ids: Sequence[int] = (),
) -> SuffixMatchState:
    """Append the new ids ``[B]``; the oldest leave where the window is full."""
    full = is_full(state.window, size)
    window = append_window(state.window, token_ids, size, excluded_ids)
    old = state.match if full else widen(state.match)
    new_ids = token_ids[:, None]
    # The window moved by one, so the old place j holds what was matched before the new place j.
    repeated = window[:, :-1] == new_ids
    for breaker_id in breaker_ids:
        repeated = repeated & (new_ids != breaker_id)
    grown = mx.where(repeated, mx.maximum(old[:, :-1], 0) + 1, 0)
    if full:  # what has left the window matches no more
        grown = mx.minimum(grown, mx.arange(1, window.shape[1]))
    match = mx.concatenate([grown, mx.zeros((len(grown), 1), mx.int32)], axis=-1)
    moved = is_counted(token_ids, excluded_ids)[:, None]
    return SuffixMatchState(window, mx.where(moved, match, old))


def followers(state: SuffixMatchState) -> tuple[mx.array, mx.array]:
    """Return ids ``[B, W − 1]`` and match ``[B, W − 1]``: drawing the id would extend the match.

    An empty place matches nothing: 0 or less, beside any id.
    """
    return mx.maximum(state.window[:, 1:], 0), state.match[:, :-1]

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

from vlmkit.sampling._history import append_window, counted, init_window, is_counted


class SuffixMatchState(NamedTuple):
    """The last W tokens and their matches."""

    window: mx.array  # int32 [B, W]; the newest last, -1 where there is none yet
    match: mx.array  # int32 [B, W]; the newest token's own place holds 0


def init_suffix_match(
    prompts: Sequence[NDArray[np.int32]],
    size: int,
    vocab_size: int,
    excluded_ids: Sequence[int] = (),
    breaker_ids: Sequence[int] = (),
) -> SuffixMatchState:
    """Start from the prompts; no match reaches across a breaker."""
    match = np.zeros((len(prompts), size), dtype=np.int32)
    for row, prompt in enumerate(prompts):
        ids = counted(np.asarray(prompt, dtype=np.int32), vocab_size, excluded_ids)[-size:]
        lengths = np.zeros(len(ids) + 1, dtype=np.int32)  # place 0 stands for "before the first"
        for place, token_id in enumerate(ids):
            grown = np.where(ids[:place] == token_id, lengths[:place] + 1, 0)
            lengths[:] = 0
            lengths[1 : place + 1] = 0 if token_id in breaker_ids else grown
        match[row, size - len(ids) :] = lengths[1:]
    return SuffixMatchState(init_window(prompts, size, vocab_size, excluded_ids), mx.array(match))


def append_suffix_match(
    state: SuffixMatchState,
    token_ids: mx.array,
    excluded_ids: Sequence[int] = (),
    breaker_ids: Sequence[int] = (),
) -> SuffixMatchState:
    """Append the new ids ``[B]``."""
    window = append_window(state.window, token_ids, excluded_ids)
    new_ids = token_ids[:, None]
    # The window moved by one, so the old place j holds what was matched before the new place j.
    repeated = window[:, :-1] == new_ids
    for breaker_id in breaker_ids:
        repeated = repeated & (new_ids != breaker_id)
    grown = mx.where(repeated, state.match[:, :-1] + 1, 0)
    match = mx.concatenate([grown, mx.zeros((len(grown), 1), mx.int32)], axis=-1)
    moved = is_counted(token_ids, excluded_ids)[:, None]
    return SuffixMatchState(window, mx.where(moved, match, state.match))


def followers(state: SuffixMatchState) -> tuple[mx.array, mx.array]:
    """Return ids ``[B, W − 1]`` and match ``[B, W − 1]``: drawing the id would extend the match.

    Empty places have match -1 and id 0.
    """
    ids, match = state.window[:, 1:], state.match[:, :-1]
    match = mx.where(state.window[:, :-1] >= 0, match, -1)
    return mx.maximum(ids, 0), match

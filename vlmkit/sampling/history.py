"""The tokens that a penalty looks at: the last W of them per row, all, or how often each occurred.

One rule in every path: the history is the prompt (where asked for) and then the tokens really
taken, forced ones included. Excluded ids (image placeholders) and ids outside the vocabulary are
left out of it, so they neither count nor push other tokens out of a window.

A window grows with the tokens that there are, up to its size: a size beyond prompt and answer costs
nothing, whatever its number.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from vlmkit.contracts.interface import Pytree

_EMPTY = -1
ENDLESS = 2**30  # tokens: a length that nothing reaches, and that int32 holds


def counted(
    token_ids: NDArray[np.int32], vocab_size: int, excluded_ids: Sequence[int]
) -> NDArray[np.int32]:
    """Return the ids of a prompt that count."""
    inside = (token_ids >= 0) & (token_ids < vocab_size)
    return token_ids[inside & ~np.isin(token_ids, np.asarray(excluded_ids, dtype=np.int64))]


def is_counted(token_ids: mx.array, excluded_ids: Sequence[int]) -> mx.array:
    """Return bool ``[B]``: which new tokens count (-1, no token, does not)."""
    keep = token_ids >= 0
    for excluded_id in excluded_ids:
        keep = keep & (token_ids != excluded_id)
    return keep


def align_right(rows: Sequence[NDArray[np.int32]], size: int | None) -> mx.array:
    """Return int32 ``[B, W]``: the last ids of each row at the end, -1 before them.

    W is what the longest row needs, and at least two; but no more than the size, if there is one.
    """
    width = max([2, *map(len, rows)])
    width = width if size is None else min(width, size)
    aligned = np.full((len(rows), width), _EMPTY, dtype=np.int32)
    for row, ids in enumerate(rows):
        aligned[row, max(width - len(ids), 0) :] = ids[-width:]
    return mx.array(aligned)


def init_window(
    prompts: Sequence[NDArray[np.int32]],
    size: int | None,
    vocab_size: int,
    excluded_ids: Sequence[int],
) -> mx.array:
    """Return int32 ``[B, W]``: what counts of each prompt, as in `align_right`."""
    rows = [
        counted(np.asarray(prompt, dtype=np.int32), vocab_size, excluded_ids) for prompt in prompts
    ]
    return align_right(rows, size)


def widen(leaf: mx.array, by: int = 1) -> mx.array:
    """Put ``by`` empty places before the oldest ones of ``[B, W]``."""
    return mx.pad(leaf, [(0, 0), (by, 0)], constant_values=_EMPTY)


def is_full(window: mx.array, size: int | None) -> bool:
    """Whether a window has its size, so that the next id takes the place of the oldest."""
    return size is not None and window.shape[1] >= size


def join_states(states: Sequence[Pytree]) -> Pytree:
    """Put the states of several batches under one chain into one, in their order.

    Rows may differ in the width of their windows: the narrower ones get empty places.

    Example:
        >>> join_states([mx.array([[1, 2]]), mx.array([[3, 4, 5]])]).tolist()
        [[-1, 1, 2], [3, 4, 5]]
    """

    def join(*leaves: mx.array) -> mx.array:
        if len({leaf.shape[1:] for leaf in leaves}) > 1:
            width = max(leaf.shape[1] for leaf in leaves)
            leaves = tuple([widen(leaf, width - leaf.shape[1]) for leaf in leaves])
        return mx.concatenate(list(leaves), axis=0)

    return tree_map(join, states[0], *states[1:])


def append_window(
    window: mx.array, token_ids: mx.array, size: int | None, excluded_ids: Sequence[int]
) -> mx.array:
    """Push the new ids ``[B]`` into the window ``[B, W]``; the oldest leave where it is full."""
    if not is_full(window, size):
        window = widen(window)
    shifted = mx.concatenate([window[:, 1:], token_ids[:, None].astype(mx.int32)], axis=-1)
    return mx.where(is_counted(token_ids, excluded_ids)[:, None], shifted, window)


def window_ids(window: mx.array) -> tuple[mx.array, mx.array]:
    """Return ids ``[B, W]`` fit for indexing and bool ``[B, 1]``: does the row have any.

    Empty slots repeat the newest id, so writing one value per id stays consistent.
    """
    newest = window[:, -1:]
    return mx.maximum(mx.where(window < 0, newest, window), 0), newest >= 0


def init_counts(
    prompts: Sequence[NDArray[np.int32]], vocab_size: int, excluded_ids: Sequence[int]
) -> mx.array:
    """Return float32 ``[B, V]``: how often each id occurs in each prompt."""
    counts = np.zeros((len(prompts), vocab_size), dtype=np.float32)
    for row, prompt in enumerate(prompts):
        ids = counted(np.asarray(prompt, dtype=np.int32), vocab_size, excluded_ids)
        np.add.at(counts[row], ids, 1.0)
    return mx.array(counts)


def append_counts(counts: mx.array, token_ids: mx.array, excluded_ids: Sequence[int]) -> mx.array:
    """Add the new ids ``[B]`` to the counts ``[B, V]``."""
    ids = mx.maximum(token_ids, 0)[:, None]
    more = is_counted(token_ids, excluded_ids)[:, None].astype(mx.float32)
    return mx.put_along_axis(counts, ids, mx.take_along_axis(counts, ids, axis=-1) + more, axis=-1)


def window_counts(window: mx.array, vocab_size: int) -> mx.array:
    """Return float32 ``[B, V]``: how often each id occurs in the window."""
    rows = mx.arange(window.shape[0])[:, None]
    zeros = mx.zeros((window.shape[0], vocab_size))
    return zeros.at[rows, mx.maximum(window, 0)].add((window >= 0).astype(mx.float32))

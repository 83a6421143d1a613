"""Array helpers of the sampler stages. Every row's result depends on that row alone."""

from __future__ import annotations

import mlx.core as mx


def poison(logits: mx.array) -> mx.array:
    """Return ``[B, 1]``: 0 for a row with a finite maximum, NaN for one that can't be drawn from.

    Selections by rank would lose a NaN; adding this to what they keep preserves it.
    """
    return mx.max(logits, axis=-1, keepdims=True) * 0.0


def largest(values: mx.array, k: int) -> mx.array:
    """Return the ids of the k largest values per row, ascending; ties go to the lowest id.

    No sort and no partition of the whole row: the k largest lie within the k blocks that have the
    largest maxima, because each of those holds a value at least as large as any value elsewhere.

    Args:
        values: float32 ``[B, V]``.
        k: how many, ``1 <= k < V``.

    Returns:
        uint32 ``[B, k]``.
    """
    rows, size = values.shape
    width = 1 << max(0, round((size / k) ** 0.5) - 1).bit_length()
    num_blocks = size // width
    if size < 4096 or num_blocks <= 2 * k:
        return mx.sort(_top(values, k), axis=-1)
    whole = num_blocks * width
    maxima = mx.max(values[:, :whole].reshape(rows, num_blocks, width), axis=-1)
    starts = mx.sort(_top(maxima, k), axis=-1)[:, :, None] * width
    ids = (starts + mx.arange(width, dtype=mx.uint32)).reshape(rows, k * width)
    if whole < size:
        tail = mx.broadcast_to(mx.arange(whole, size, dtype=mx.uint32), (rows, size - whole))
        ids = mx.concatenate([ids, tail], axis=-1)
    places = mx.sort(_top(mx.take_along_axis(values, ids, axis=-1), k), axis=-1)
    return mx.take_along_axis(ids, places, axis=-1)


def _top(values: mx.array, k: int) -> mx.array:
    # MLX compares equal values by their index, so the lowest one wins (a test holds it to that).
    return mx.argpartition(-values, k - 1, axis=-1)[:, :k]


def keep_ranks(values: mx.array, ordered: mx.array, num_kept: mx.array) -> mx.array:
    """Return bool ``[B, N]``: the first ``num_kept`` by value, the lowest index first on ties.

    Args:
        values: float32 ``[B, N]``.
        ordered: the same values, sorted from the largest to the smallest.
        num_kept: ``[B, 1]``, at least 1.
    """
    last = mx.take_along_axis(ordered, num_kept - 1, axis=-1)
    above, tied = values > last, values == last
    num_tied = num_kept - mx.sum(above, axis=-1, keepdims=True)
    return above | (tied & (mx.cumsum(tied, axis=-1) <= num_tied))


def keep_ties(values: mx.array, ordered: mx.array, num_kept: mx.array) -> mx.array:
    """Return bool ``[B, N]``: as `keep_ranks`, and all that tie with the last one kept."""
    return values >= mx.take_along_axis(ordered, num_kept - 1, axis=-1)


def scatter(ids: mx.array, logits: mx.array, vocab_size: int) -> mx.array:
    """Lay a shortlist ``[B, K]`` out over the vocabulary ``[B, V]``, −inf elsewhere."""
    empty = mx.full((logits.shape[0], vocab_size), -mx.inf)
    return mx.put_along_axis(empty, ids, logits, axis=-1)

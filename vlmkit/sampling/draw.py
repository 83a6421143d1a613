"""Turn logits into token ids: the argmax, or the inverse of the cumulative distribution."""

from __future__ import annotations

import mlx.core as mx

_BLOCK = 1024
_BELOW_ONE = 1.0 - 2.0**-24  # the largest float32 below 1

NO_TOKEN = -1
"""What a row without a finite maximum draws: every logit is −inf, or one is NaN or +inf."""


def is_finite(x: mx.array) -> mx.array:
    """Return ``mx.isfinite(x)``, by a quarter of its operations.

    Example:
        >>> is_finite(mx.array([-1.0, mx.inf, -mx.inf, mx.nan])).tolist()
        [True, False, False, False]
    """
    return mx.abs(x) < mx.inf


def draw_greedy(logits: mx.array) -> mx.array:
    """Return the id of the largest logit per row, the lowest id on ties.

    Args:
        logits: float32 ``[B, V]``.

    Returns:
        int32 ``[B]``; -1 for a row whose maximum is not finite.

    Example:
        >>> draw_greedy(mx.array([[0.0, 2.0, 2.0], [-mx.inf, -mx.inf, -mx.inf]])).tolist()
        [1, -1]
    """
    token_ids = mx.argmax(logits, axis=-1).astype(mx.int32)
    return mx.where(is_finite(mx.max(logits, axis=-1)), token_ids, NO_TOKEN)


def draw_inverse_cdf(logits: mx.array, uniform: mx.array) -> mx.array:
    """Draw from ``softmax(logits)``: the smallest id whose cumulative mass exceeds ``u · total``.

    The mass is summed per block of ids and then inside the block that holds the target, so that
    many unlikely tokens after a likely one are not lost to rounding. A token of zero mass is never
    drawn, and a row's token depends on its own logits and number only.

    Args:
        logits: float32 ``[B, V]``.
        uniform: float32 ``[B]``, in ``[0, 1)``.

    Returns:
        int32 ``[B]``; -1 for a row whose maximum is not finite.

    Example:
        >>> logits = mx.log(mx.array([[0.25, 0.25, 0.5]]))
        >>> [draw_inverse_cdf(logits, mx.array([u])).item() for u in (0.0, 0.3, 0.9)]
        [0, 1, 2]
    """
    rows, size = logits.shape
    top = mx.max(logits, axis=-1, keepdims=True)
    weights = mx.exp(logits - top)
    # u <= 1 - 2^-24 makes u * total < total also after rounding: some id always lies beyond.
    share = mx.minimum(uniform, _BELOW_ONE)[:, None]
    if size <= 2 * _BLOCK:
        token_ids = _first_beyond(mx.cumsum(weights, axis=-1), share)
    else:
        whole = size // _BLOCK * _BLOCK
        masses = mx.sum(weights[:, :whole].reshape(rows, -1, _BLOCK), axis=-1)
        if whole < size:
            rest = mx.sum(weights[:, whole:], axis=-1, keepdims=True)
            masses = mx.concatenate([masses, rest], axis=-1)
        sums = mx.cumsum(masses, axis=-1)
        target = share * sums[:, -1:]
        block = mx.sum(sums <= target, axis=-1, keepdims=True)
        before = mx.take_along_axis(sums, mx.maximum(block - 1, 0), axis=-1) * (block > 0)
        start = mx.minimum(block * _BLOCK, size - _BLOCK)  # the last block may be a short one
        ids = start + mx.arange(_BLOCK)
        inside = mx.where(ids >= block * _BLOCK, mx.take_along_axis(weights, ids, axis=-1), 0.0)
        running = mx.cumsum(inside, axis=-1)
        token_ids = start[:, 0] + _count_until(running, target - before)
    return mx.where(is_finite(top[:, 0]), token_ids.astype(mx.int32), NO_TOKEN)


def _first_beyond(running: mx.array, share: mx.array) -> mx.array:
    return _count_until(running, share * running[:, -1:])


def _count_until(running: mx.array, target: mx.array) -> mx.array:
    beyond = mx.sum(running <= target, axis=-1)
    last = mx.sum(running < running[:, -1:], axis=-1)  # the last id with mass
    return mx.minimum(beyond, last)

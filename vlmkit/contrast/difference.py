"""What the methods share: logits that can be subtracted, and the plausibility cut."""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx

from vlmkit.numeric.probabilities import keep_where, log_softmax

LOWEST = -1e4  # nats below the most likely token: no probability, yet finite in a difference


def logprobs(logits: mx.array) -> mx.array:
    """Return ``ln p`` of each row, at least ``LOWEST``, so that differences are never NaN.

    Args:
        logits: float32 ``[B, V]`` or ``[B, N, V]``; −inf stands for probability 0.

    Example:
        >>> logprobs(mx.array([[0.0, -mx.inf]])).tolist()
        [[0.0, -10000.0]]
    """
    flat = log_softmax(logits.reshape(-1, logits.shape[-1]))
    return mx.maximum(flat, LOWEST).reshape(logits.shape)


def without_gaps(logits: mx.array) -> mx.array:
    """Return the logits ``[B, V]`` with a finite value for −inf, below all others of its row.

    Example:
        >>> without_gaps(mx.array([[3.0, -mx.inf]])).tolist()
        [[3.0, -9997.0]]
    """
    gaps = logits == -mx.inf
    top = mx.max(logits, axis=-1, keepdims=True)
    bottom = mx.min(mx.where(gaps, mx.inf, logits), axis=-1, keepdims=True)
    return mx.where(gaps, mx.minimum(top + LOWEST, bottom), logits)


def keep_support(scores: mx.array, logits: mx.array) -> mx.array:
    """Set the scores to −inf where the logits are: a removed token stays removed."""
    return keep_where(scores, logits != -mx.inf)


def keep_plausible(scores: mx.array, logits: mx.array, fraction: float) -> mx.array:
    """Set the scores to −inf where ``p < fraction · max p``, by ``z − max z < ln fraction``.

    The most likely token is always kept. A fraction of 0 removes only what has probability 0.

    Args:
        scores: float32 ``[B, V]``, finite.
        logits: float32 ``[B, V]`` of the model itself.
        fraction: from 0 to 1.

    Example:
        >>> logits = mx.array([[0.0, -1.0, -3.0]])
        >>> keep_plausible(mx.zeros((1, 3)), logits, fraction=0.1).tolist()
        [[0.0, 0.0, -inf]]

    Reference:
        Li et al., "Contrastive decoding: open-ended text generation as optimization", ACL 2023,
        arXiv:2210.15097 (the adaptive plausibility constraint).
    """
    if fraction == 0.0:
        return keep_support(scores, logits)
    top = mx.max(logits, axis=-1, keepdims=True)
    return keep_where(scores, logits - top >= math.log(fraction))


def only(others: mx.array) -> mx.array:
    """Return the logits ``[B, V]`` of the one other stream in ``[B, 1, V]``."""
    assert others.shape[1] == 1, f"one other stream, not {others.shape[1]}"
    return others[:, 0]


def away_from(*, alpha: float, beta: float) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """Return a combine function: ``(1 + α) z − α z'`` where ``z ≥ ln β + max z``, else −inf.

    α = 0 gives ``z`` itself under the cut, which is ``min_p(β)``.
    """

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        if alpha == 0.0:
            return keep_plausible(logits, logits, beta)
        scores = (1.0 + alpha) * logits - alpha * without_gaps(only(others))
        return keep_plausible(scores, logits, beta)

    return combine

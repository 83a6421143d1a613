"""What a policy's logits and attention outputs are compared by, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx


class Compared(NamedTuple):
    """Two distributions at each of N positions."""

    kl: mx.array  # float32 [N]: KL(reference || variant) in nats
    agrees: mx.array  # bool [N]: both have the same most likely token
    delta_logprobs: mx.array  # float32 [N]: variant minus reference, of the token that follows


def compare_logits(reference: mx.array, variant: mx.array, token_ids: mx.array) -> Compared:
    """Compare logits position by position.

    Args:
        reference: [N, V] logits, any float dtype.
        variant: [N, V] logits.
        token_ids: int32 [N], the token of the reference that follows each position.

    Returns:
        Exactly 0 and True where both logits are equal. KL is the sum of ``p (d - 1 + exp(-d))``
        with ``d = log p - log q``: the same number as the sum of ``p d``, since p and q both sum to
        1, but no term is negative, so small divergences keep their digits.

    Example:
        >>> logits = mx.array([[0.0, 1.0], [2.0, 0.0]])
        >>> compared = compare_logits(logits, mx.zeros((2, 2)), mx.array([1, 0]))
        >>> [round(value, 4) for value in compared.kl.tolist()]
        [0.1109, 0.3278]
        >>> compare_logits(logits, logits, mx.array([1, 0])).kl.tolist()
        [0.0, 0.0]
    """
    ours, theirs = (_log_softmax(logits) for logits in (reference, variant))
    difference = ours - theirs
    p, q = mx.exp(ours), mx.exp(theirs)
    small = p * (difference + mx.expm1(-difference))
    # Far apart, exp(-d) may overflow; there the plain form has digits enough.
    terms = mx.where(mx.abs(difference) < 1, small, p * difference - p + q)
    token = token_ids[:, None]
    taken = mx.take_along_axis(theirs, token, 1) - mx.take_along_axis(ours, token, 1)
    agrees = mx.argmax(reference, axis=-1) == mx.argmax(variant, axis=-1)
    return Compared(mx.maximum(terms, 0).sum(axis=-1), agrees, taken[:, 0])


def _log_softmax(logits: mx.array) -> mx.array:
    wide = logits.astype(mx.float32)
    return wide - mx.logsumexp(wide, axis=-1, keepdims=True)


class Deviation(NamedTuple):
    """Sums of squares per row of what layers give, over the steps so far."""

    difference: mx.array  # float32 [layers, B]
    reference: mx.array  # float32 [layers, B]


def add_deviation(
    before: Deviation | None,
    reference: Sequence[mx.array],
    variant: Sequence[mx.array],
    weights: mx.array,
) -> Deviation:
    """Add one step.

    Args:
        before: the sums so far; None: nothing yet.
        reference: of each layer, [B, ...].
        variant: likewise.
        weights: float32 [B], 1 where the row has this step, else 0.
    """
    pairs = list(zip(reference, variant, strict=True))
    step = Deviation(
        mx.stack([_square(theirs.astype(mx.float32) - ours, weights) for ours, theirs in pairs]),
        mx.stack([_square(ours, weights) for ours, _ in pairs]),
    )
    if before is None:
        return step
    return Deviation(before.difference + step.difference, before.reference + step.reference)


def relative_l2(deviation: Deviation) -> mx.array:
    """Return ``|variant - reference| / |reference|``, float32 [layers, B]; 0 where both are 0."""
    whole = mx.sqrt(deviation.reference)
    return mx.sqrt(deviation.difference) / mx.where(whole > 0, whole, 1)


def _square(x: mx.array, weights: mx.array) -> mx.array:
    flat = x.astype(mx.float32).reshape(x.shape[0], -1)
    return (flat * flat).sum(axis=1) * weights

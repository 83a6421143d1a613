"""What a policy's logits and attention outputs are compared by, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


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


def layer_deviation(reference: Sequence[mx.array], variant: Sequence[mx.array]) -> mx.array:
    """Sum squares of what each layer gives, row by row.

    Args:
        reference: of each layer, [B, ...].
        variant: likewise.

    Returns:
        float32 [2, layers, B]: of variant minus reference, and of the reference.

    Example:
        >>> layer_deviation([mx.array([[3.0, 4.0]])], [mx.array([[3.0, 5.0]])]).tolist()
        [[[1.0]], [[25.0]]]
    """
    wide = [(one.astype(mx.float32), two.astype(mx.float32))
            for one, two in zip(reference, variant, strict=True)]  # fmt: skip
    return mx.stack(
        [
            mx.stack([_square(theirs - ours) for ours, theirs in wide]),
            mx.stack([_square(ours) for ours, _ in wide]),
        ]
    )


def relative_l2(difference: NDArray[np.float64], reference: NDArray[np.float64]) -> list[float]:
    """Return ``|variant - reference| / |reference|`` from sums of squares; 0 where all are 0.

    Example:
        >>> relative_l2(np.array([1.0, 0.0]), np.array([4.0, 0.0]))
        [0.5, 0.0]
    """
    whole = np.where(reference > 0, reference, 1.0)
    ratio: list[float] = np.sqrt(difference / whole).tolist()
    return ratio


def _square(x: mx.array) -> mx.array:
    flat = x.reshape(x.shape[0], -1)
    return (flat * flat).sum(axis=1)

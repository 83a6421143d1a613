"""M3ID: with the image against without it, ever more as the answer grows."""

from __future__ import annotations

import math
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import keep_plausible, logprobs, only
from vlmkit.declare.configbase import Float, StageConfig

_LONGEST = 20.0  # e²⁰: the image's share of the difference is all that float32 still holds


class M3idConfig(StageConfig):
    """Make up for the image that fades from the model's mind as it writes."""

    kind: Literal["m3id"] = "m3id"
    forgetting: Float = Field(
        default=0.02, ge=0.0, description="rate λ per token at which the image fades; 0 is off"
    )
    confidence: Float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="leave a token alone where the model's largest probability reaches this; null:"
        " never",
    )
    beta: Float = Field(
        default=0.0, ge=0.0, le=1.0, description="keep tokens with p ≥ beta · max p; 0 is off"
    )


def m3id(config: M3idConfig) -> Contrast:
    """Return ``c + w (c − u)`` on log-probabilities: c with the images, u without.

    ``w = (1 − e^{−λt}) / e^{−λt}`` for the t-th token (t = 1 first), and 0 where
    ``max c ≥ ln confidence``. λt counts up to 20.

    Example:
        >>> look = m3id(M3idConfig(forgetting=math.log(2.0)))
        >>> c, u = mx.log(mx.array([[0.5, 0.5]])), mx.log(mx.array([[[0.8, 0.2]]]))
        >>> mx.softmax(look.combine(c, u, mx.array([0])), axis=-1).round(3).tolist()
        [[0.20000000298023224, 0.800000011920929]]

    Reference:
        Favero et al., "Multi-modal hallucination control by visual information grounding",
        CVPR 2024, arXiv:2403.14003. Counting from t = 1, λ = 0.02 and the plausibility cut (0.1
        there) follow the re-implementation in AvisC (sangminwoo/AvisC, ``avisc_sample.py``),
        which has no confidence threshold.
    """

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        seen, unseen = logprobs(logits), logprobs(only(others))
        faded = mx.minimum(config.forgetting * (num_tokens + 1).astype(mx.float32), _LONGEST)
        weight = mx.expm1(faded)[:, None]
        if config.confidence is not None:
            sure = mx.max(seen, axis=-1, keepdims=True) >= math.log(config.confidence)
            weight = mx.where(sure, 0.0, weight)
        return keep_plausible(seen + weight * (seen - unseen), logits, config.beta)

    return Contrast("m3id", combine)

"""Top-nσ: keep logits within n standard deviations of the largest."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where
from vlmkit.sampling.stateless import by_value


class TopNSigma(StageConfig):
    """Drop logits more than n standard deviations below the largest."""

    kind: Literal["top_n_sigma"] = "top_n_sigma"
    n: Float = Field(gt=0.0, description="how many standard deviations; the paper uses 1")


def top_n_sigma(config: TopNSigma) -> SamplerStage:
    """Keep ``z_i ≥ max z − n · σ(z)``, σ the population's over the finite logits.

    It commutes with temperature.

    Example:
        >>> stage = top_n_sigma(TopNSigma(n=1.0))
        >>> mx.isfinite(stage.apply((), mx.array([[4.0, 3.5, 0.0, -mx.inf]]), None)).tolist()
        [[True, True, False, False]]

    Reference:
        Tang et al., "Top-nσ: not all logits are you need", 2024, arXiv:2411.07641.
    """

    def truncate(logits: mx.array) -> mx.array:
        finite = (logits > -mx.inf).astype(mx.float32)
        below = mx.max(logits, axis=-1, keepdims=True) - logits  # +inf for a removed token
        below = mx.where(finite > 0, below, 0.0)
        # In units of the spread, so that squares of huge logits stay finite.
        spread = mx.maximum(mx.max(below, axis=-1, keepdims=True), 1e-30)
        scaled = below / spread
        count = mx.sum(finite, axis=-1, keepdims=True)
        mean = mx.sum(scaled, axis=-1, keepdims=True) / count
        variance = mx.sum(mx.square(scaled - mean) * finite, axis=-1, keepdims=True) / count
        return keep_where(logits, scaled <= config.n * mx.sqrt(variance))

    return by_value("top_n_sigma", truncate)

"""Min-p: keep what is not too unlikely beside the most likely token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where
from vlmkit.sampling.per_row import Number
from vlmkit.sampling.stateless import by_value


class MinP(StageConfig):
    """Drop tokens less likely than a fraction of the most likely one."""

    kind: Literal["min_p"] = "min_p"
    p: Float = Field(ge=0.0, le=1.0, description="fraction of the largest probability; 0 is off")


def min_p(config: MinP) -> SamplerStage:
    """Keep ``p_i ≥ m · max p``, decided on logits: ``z_i − max z ≥ ln m``.

    Example:
        >>> stage = min_p(MinP(p=0.5))
        >>> stage.apply((), mx.array([[0.0, -0.5, -1.0]]), None).tolist()
        [[0.0, -0.5, -inf]]

    Reference:
        Nguyen et al., "Turning up the heat: min-p sampling", ICLR 2025, arXiv:2407.01082.
    """
    return min_p_of(config)(bound(config))


def bound(config: MinP) -> float:
    """Return ``ln m``."""
    return math.log(config.p) if config.p > 0.0 else -math.inf


def min_p_of(config: MinP) -> Callable[[Number], SamplerStage]:
    """Return the stage as a function of its bound; off where the config's is."""

    def make(value: Number) -> SamplerStage:
        def truncate(logits: mx.array) -> mx.array:
            if config.p == 0.0:
                return logits
            top = mx.max(logits, axis=-1, keepdims=True)
            return keep_where(logits, logits - top >= value)

        return by_value("min_p", truncate)

    return make

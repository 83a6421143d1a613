"""Epsilon cutoff: drop tokens below an absolute probability."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where, log_softmax
from vlmkit.sampling.stateless import by_value


class EpsilonCutoff(StageConfig):
    """Drop tokens less likely than epsilon."""

    kind: Literal["epsilon_cutoff"] = "epsilon_cutoff"
    epsilon: Float = Field(ge=0.0, lt=1.0, description="smallest probability to keep; 0 is off")


def epsilon_cutoff(config: EpsilonCutoff) -> SamplerStage:
    """Keep ``p_i ≥ ε``, and the most likely token (all that tie with it) in any case.

    Example:
        >>> stage = epsilon_cutoff(EpsilonCutoff(epsilon=0.25))
        >>> mx.isfinite(stage.apply((), mx.log(mx.array([[0.5, 0.3, 0.2]])), None)).tolist()
        [[True, True, False]]

    Reference:
        Hewitt, Manning, Liang, "Truncation sampling as language model desmoothing", EMNLP 2022,
        arXiv:2210.15191.
    """

    def truncate(logits: mx.array) -> mx.array:
        if config.epsilon == 0.0:
            return logits
        top = logits == mx.max(logits, axis=-1, keepdims=True)
        return keep_where(logits, top | (mx.exp(log_softmax(logits)) >= config.epsilon))

    return by_value("epsilon_cutoff", truncate)

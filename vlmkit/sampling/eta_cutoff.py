"""Eta cutoff: a probability cutoff that falls with the entropy."""

from __future__ import annotations

import math
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import entropy, keep_where, log_softmax
from vlmkit.sampling.stateless import by_value


class EtaCutoff(StageConfig):
    """Drop tokens less likely than a cutoff that depends on the entropy."""

    kind: Literal["eta_cutoff"] = "eta_cutoff"
    epsilon: Float = Field(ge=0.0, lt=1.0, description="largest value of the cutoff; 0 is off")


def eta_cutoff(config: EtaCutoff) -> SamplerStage:
    """Keep ``p_i ≥ min(ε, √ε · e^−H)``, and the most likely token (all ties) in any case.

    Example:
        >>> stage = eta_cutoff(EtaCutoff(epsilon=0.2))
        >>> mx.isfinite(stage.apply((), mx.log(mx.array([[0.5, 0.4, 0.1]])), None)).tolist()
        [[True, True, False]]

    Reference:
        Hewitt, Manning, Liang, "Truncation sampling as language model desmoothing", EMNLP 2022,
        arXiv:2210.15191.
    """

    def truncate(logits: mx.array) -> mx.array:
        if config.epsilon == 0.0:
            return logits
        logprobs = log_softmax(logits)
        spread = math.sqrt(config.epsilon) * mx.exp(-entropy(logprobs))
        top = logits == mx.max(logits, axis=-1, keepdims=True)
        return keep_where(logits, top | (mx.exp(logprobs) >= mx.minimum(spread, config.epsilon)))

    return by_value("eta_cutoff", truncate)

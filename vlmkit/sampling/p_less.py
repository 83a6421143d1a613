"""P-less sampling: a cutoff at the collision probability, without a parameter."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where, log_softmax, total_mass
from vlmkit.sampling.stateless import by_value


class PLess(StageConfig):
    """Drop tokens less likely than the collision probability."""

    kind: Literal["p_less"] = "p_less"
    temperature: Float = Field(
        default=1.0, gt=0.0, description="decide on the distribution at this temperature"
    )


def p_less(config: PLess) -> SamplerStage:
    """Keep ``p_i ≥ Σ p²``, and the most likely token (all ties) whatever the rounding.

    Uniform logits keep every token: there ``p = Σ p²``. p is ``softmax(z / T)``, for chains that
    apply their temperature later, as in mlx-vlm; the logits themselves are not divided.

    Example:
        >>> stage = p_less(PLess())
        >>> mx.isfinite(stage.apply((), mx.log(mx.array([[0.5, 0.4, 0.1]])), None)).tolist()
        [[True, False, False]]

    Reference:
        Tan et al., "p-less sampling: a robust hyperparameter-free approach for LLM decoding",
        2025, arXiv:2509.23234.
    """

    def truncate(logits: mx.array) -> mx.array:
        highest = mx.max(logits, axis=-1, keepdims=True)
        probs = mx.exp(log_softmax((logits - highest) / config.temperature))
        top = logits == highest
        return keep_where(logits, top | (probs >= total_mass(mx.square(probs))))

    return by_value("p_less", truncate)

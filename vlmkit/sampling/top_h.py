"""Top-H: keep the most likely tokens that together carry a share of the entropy."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import (
    keep_where,
    log_softmax,
    mass_above,
    surprise_mass,
    total_mass,
)
from vlmkit.sampling.numerics import keep_ranks
from vlmkit.sampling.stateless import by_value


class TopH(StageConfig):
    """Keep the most likely tokens up to a share h of the entropy."""

    kind: Literal["top_h"] = "top_h"
    h: Float = Field(gt=0.0, le=1.0, description="share of the entropy; 1 is off")


def top_h(config: TopH) -> SamplerStage:
    """Keep token i while ``−Σ p ln p`` over it and all ranked above it is at most ``h · H``.

    The rank is by logit, the lower id first on ties. The first token is always kept, one
    whose probability is 0 in float32 never.

    Example:
        >>> stage = top_h(TopH(h=0.7))
        >>> mx.isfinite(stage.apply((), mx.log(mx.array([[0.2, 0.5, 0.3]])), None)).tolist()
        [[False, True, True]]

    Reference:
        Potraghloo et al., "Top-H decoding: adapting the creativity and coherence with bounded
        entropy in text generation", 2025, arXiv:2509.02510.
    """

    def truncate(logits: mx.array) -> mx.array:
        if config.h == 1.0:
            return logits
        ordered = -mx.sort(-logits, axis=-1)
        logprobs = log_softmax(ordered)
        terms = surprise_mass(logprobs)
        carried = mass_above(terms) + terms
        inside = (carried <= config.h * total_mass(terms)) & (mx.exp(logprobs) > 0.0)
        num_kept = mx.maximum(mx.sum(inside, axis=-1, keepdims=True), 1)
        return keep_where(logits, keep_ranks(logits, ordered, num_kept))

    return by_value("top_h", truncate)

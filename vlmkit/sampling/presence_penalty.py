"""Presence penalty: subtract a constant from every token that has occurred."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float
from vlmkit.sampling.counts import CountingConfig, counting_stage
from vlmkit.sampling.per_row import Number


class PresencePenalty(CountingConfig):
    """Lower tokens that occurred at all."""

    kind: Literal["presence_penalty"] = "presence_penalty"
    penalty: Float = Field(description="subtracted from the logit; 0 is off, negative encourages")


def presence_penalty(config: PresencePenalty) -> SamplerStage:
    """Subtract ``a`` where the count is positive: ``z − a · 1[c > 0]``.

    As in OpenAI's API and vLLM, only generated tokens count unless ``include_prompt`` is set.

    Example:
        >>> stage = presence_penalty(PresencePenalty(penalty=1.0))
        >>> state = stage.update(stage.init([[]], 3), mx.array([2]))
        >>> stage.apply(state, mx.zeros((1, 3)), None).tolist()
        [[0.0, 0.0, -1.0]]

    Reference:
        OpenAI API reference, "Frequency and presence penalties".
    """
    return presence_penalty_of(config)(config.penalty)


def presence_penalty_of(config: PresencePenalty) -> Callable[[Number], SamplerStage]:
    """Return the stage as a function of its penalty."""

    def make(value: Number) -> SamplerStage:
        def penalise(logits: mx.array, counts: mx.array) -> mx.array:
            return logits - mx.minimum(counts, 1.0) * value

        return counting_stage("presence_penalty", config, penalise)

    return make

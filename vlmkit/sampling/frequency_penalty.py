"""Frequency penalty: subtract a constant for every occurrence of a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float
from vlmkit.sampling.counts import CountingConfig, counting_stage
from vlmkit.sampling.per_row import Number


class FrequencyPenalty(CountingConfig):
    """Lower tokens by how often they occurred."""

    kind: Literal["frequency_penalty"] = "frequency_penalty"
    penalty: Float = Field(description="subtracted per occurrence; 0 is off, negative encourages")


def frequency_penalty(config: FrequencyPenalty) -> SamplerStage:
    """Subtract ``b`` times the count: ``z − b · c``.

    As in OpenAI's API and vLLM, only generated tokens count unless ``include_prompt`` is set.

    Example:
        >>> stage = frequency_penalty(FrequencyPenalty(penalty=0.5))
        >>> state = stage.init([[]], 3)
        >>> for token_id in (2, 2, 1):
        ...     state = stage.update(state, mx.array([token_id]))
        >>> stage.apply(state, mx.zeros((1, 3)), None).tolist()
        [[0.0, -0.5, -1.0]]

    Reference:
        OpenAI API reference, "Frequency and presence penalties".
    """
    return frequency_penalty_of(config)(config.penalty)


def frequency_penalty_of(config: FrequencyPenalty) -> Callable[[Number], SamplerStage]:
    """Return the stage as a function of its penalty."""

    def make(value: Number) -> SamplerStage:
        def penalise(logits: mx.array, counts: mx.array) -> mx.array:
            return logits - counts * value

        return counting_stage("frequency_penalty", config, penalise)

    return make

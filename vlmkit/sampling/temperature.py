"""Temperature: flatten or sharpen the distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.sampling.per_row import Number
from vlmkit.sampling.stateless import by_value

_TINY = 1e-30  # float32 would flush a smaller divisor to zero


class Temperature(StageConfig):
    """Divide the logits by a temperature."""

    kind: Literal["temperature"] = "temperature"
    temperature: Float = Field(gt=0.0, description="below 1 sharpens, above 1 flattens; 1 is off")


def temperature(config: Temperature) -> SamplerStage:
    """Divide the logits: ``z / T``; below 1 ``(z − max z) / T``, which can't overflow.

    Below 1 no logit is left above 0. A ``repetition_penalty`` looks at the sign, so it belongs
    before this stage; no other stage tells the difference.

    Example:
        >>> stage = temperature(Temperature(temperature=2.0))
        >>> stage.apply((), mx.array([[0.0, 4.0]]), None).tolist()
        [[0.0, 2.0]]

    Reference:
        Ackley, Hinton, Sejnowski, "A learning algorithm for Boltzmann machines", 1985.
    """
    return temperature_of(config)(divisor(config))


def divisor(config: Temperature) -> float:
    """Return what the logits are divided by."""
    return max(config.temperature, _TINY)


def temperature_of(config: Temperature) -> Callable[[Number], SamplerStage]:
    """Return the stage as a function of its divisor, on the same side of 1 as the config's."""
    shared = divisor(config)

    def make(value: Number) -> SamplerStage:
        def divide(logits: mx.array) -> mx.array:
            if shared == 1.0:
                return logits
            if shared > 1.0:
                return logits / value
            return (logits - mx.max(logits, axis=-1, keepdims=True)) / value

        return by_value("temperature", divide)

    return make

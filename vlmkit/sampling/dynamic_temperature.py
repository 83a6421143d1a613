"""Dynamic temperature: hotter where the model is unsure."""

from __future__ import annotations

from typing import Literal, Self

import mlx.core as mx
from pydantic import Field, model_validator

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import entropy, log_softmax
from vlmkit.sampling.stateless import by_value


class DynamicTemperature(StageConfig):
    """Choose the temperature between two bounds by the entropy."""

    kind: Literal["dynamic_temperature"] = "dynamic_temperature"
    min_temperature: Float = Field(ge=1e-6, description="at zero entropy")
    max_temperature: Float = Field(ge=1e-6, description="at the entropy of equal probabilities")
    exponent: Float = Field(default=1.0, gt=0.0, description="bends the path between the two")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_temperature > self.max_temperature:
            raise ValueError("min_temperature must not exceed max_temperature")
        return self


def dynamic_temperature(config: DynamicTemperature) -> SamplerStage:
    """Divide by ``T = Tmin + (Tmax − Tmin) · (H / ln n)^e``, n the number of tokens left.

    The logits come back as ``(z − max z) / T``.

    Example:
        >>> config = DynamicTemperature(min_temperature=0.5, max_temperature=2.0)
        >>> dynamic_temperature(config).apply((), mx.array([[1.0, -9.0]]), None)[0, 1].item() < -19
        True

    Reference:
        kalomaze, "Dynamic temperature sampling", 2024, github.com/ggml-org/llama.cpp pull request
        4972.
    """
    low, span = config.min_temperature, config.max_temperature - config.min_temperature

    def divide(logits: mx.array) -> mx.array:
        if low == 1.0 and span == 0.0:
            return logits
        top = mx.max(logits, axis=-1, keepdims=True)
        num_left = mx.sum(logits > -mx.inf, axis=-1, keepdims=True)
        most = mx.maximum(mx.log(num_left.astype(mx.float32)), 1e-6)  # one token: H = 0 anyway
        share = mx.clip(entropy(log_softmax(logits)) / most, 0.0, 1.0)
        return (logits - top) / (low + span * mx.power(share, config.exponent))

    return by_value("dynamic_temperature", divide)

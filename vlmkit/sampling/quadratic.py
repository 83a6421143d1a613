"""Quadratic (smooth) sampling: pull the logits down by the square of their distance to the top."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.sampling.stateless import by_value


class Quadratic(StageConfig):
    """Replace the distance to the largest logit by its square."""

    kind: Literal["quadratic"] = "quadratic"
    factor: Float = Field(gt=0.0, description="larger is sharper")


def quadratic(config: Quadratic) -> SamplerStage:
    """Transform the logits: ``z' = max z − f · (z − max z)²``.

    Example:
        >>> stage = quadratic(Quadratic(factor=0.5))
        >>> stage.apply((), mx.array([[3.0, 1.0]]), None).tolist()
        [[3.0, 1.0]]

    Reference:
        kalomaze, "Quadratic sampling", 2024, github.com/oobabooga/text-generation-webui pull
        request 5403.
    """

    def bend(logits: mx.array) -> mx.array:
        top = mx.max(logits, axis=-1, keepdims=True)
        return top - config.factor * mx.square(logits - top)

    return by_value("quadratic", bend)

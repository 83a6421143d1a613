"""Greedy decoding: always the most likely token."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import StageConfig
from vlmkit.sampling.numerics import scatter
from vlmkit.sampling.stateless import keep_state, no_state


class Greedy(StageConfig):
    """Take the argmax; the lowest id on ties."""

    kind: Literal["greedy"] = "greedy"


def greedy(config: Greedy) -> SamplerStage:
    """Keep only ``argmax z``, the lowest id on ties: the limit of temperature → 0.

    Example:
        >>> greedy(Greedy()).apply((), mx.array([[1.0, 3.0, 3.0]]), None).tolist()
        [[-inf, 3.0, -inf]]
    """

    def shortlist(state: Pytree, logits: mx.array) -> tuple[mx.array, mx.array]:
        top = mx.max(logits, axis=-1, keepdims=True)
        return mx.argmax(logits, axis=-1, keepdims=True), top + top * 0.0  # NaN where not finite

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        return scatter(*shortlist(state, logits), logits.shape[-1])

    return SamplerStage(
        "greedy", no_state, apply, keep_state, is_greedy=True, by_value=True, shortlist=shortlist
    )

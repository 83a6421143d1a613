"""A penalty for recent tokens that fades with every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.stages import SamplerStage


class FadingPenaltyState(NamedTuple):
    """How recently each token was taken."""

    heat: mx.array  # float32 [B, V]


def fading_penalty(*, strength: float, decay: float = 0.5) -> SamplerStage:
    """Subtract ``strength · h_i``; then ``h ← decay · h``, plus 1 for the token taken."""
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be at least 0 and less than 1,\ngot {decay}")

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> FadingPenaltyState:
        return FadingPenaltyState(mx.zeros((len(prompts), vocab_size)))

    def apply(state: FadingPenaltyState, logits: mx.array, uniform: mx.array | None) -> mx.array:
        return logits - strength * state.heat

    def update(state: FadingPenaltyState, token_ids: mx.array) -> FadingPenaltyState:
        taken = mx.arange(state.heat.shape[1]) == token_ids[:, None]
        heat = decay * state.heat + taken.astype(mx.float32)
        return FadingPenaltyState(mx.where(token_ids[:, None] < 0, state.heat, heat))

    return SamplerStage("fading_penalty", init, apply, update)

"""Repetition penalty: make recent tokens less likely by a factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.configbase import Float, Int, StageConfig
from vlmkit.sampling._history import append_window, init_window, window_ids
from vlmkit.types import SamplerStage


class RepetitionPenalty(StageConfig):
    """Divide positive and multiply negative logits of recent tokens."""

    kind: Literal["repetition_penalty"] = "repetition_penalty"
    penalty: Float = Field(gt=0.0, description="above 1 discourages repetition; 1 is off")
    context_size: Int = Field(
        default=20, ge=1, description="look at this many last tokens of prompt and answer"
    )
    excluded_ids: tuple[Int, ...] = Field(
        default=(), description="ids that never count, such as image placeholders"
    )


class RepetitionPenaltyState(NamedTuple):
    """The tokens that are penalised."""

    window: mx.array  # int32 [B, context_size]; the newest last, -1 where there is none yet


def repetition_penalty(config: RepetitionPenalty) -> SamplerStage:
    """Weaken every id in the window once: ``z / r`` where ``z > 0``, else ``z · r``.

    The window holds the last ``context_size`` tokens of prompt and answer together, without the
    excluded ids.

    Example:
        >>> stage = repetition_penalty(RepetitionPenalty(penalty=2.0))
        >>> state = stage.init([np.array([0, 2, 2])], 3)
        >>> stage.apply(state, mx.array([[4.0, 4.0, -4.0]]), None).tolist()
        [[2.0, 4.0, -8.0]]

    Reference:
        Keskar et al., "CTRL: a conditional transformer language model", 2019, arXiv:1909.05858.
    """
    factor = config.penalty

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> RepetitionPenaltyState:
        window = init_window(prompts, config.context_size, vocab_size, config.excluded_ids)
        return RepetitionPenaltyState(window)

    def apply(
        state: RepetitionPenaltyState, logits: mx.array, uniform: mx.array | None
    ) -> mx.array:
        if factor == 1.0:
            return logits
        ids, has_any = window_ids(state.window)
        old = mx.take_along_axis(logits, ids, axis=-1)
        new = mx.where(old > 0, old / factor, old * factor)
        return mx.put_along_axis(logits, ids, mx.where(has_any, new, old), axis=-1)

    def update(state: RepetitionPenaltyState, token_ids: mx.array) -> RepetitionPenaltyState:
        window = append_window(state.window, token_ids, config.excluded_ids)
        return RepetitionPenaltyState(window)

    return SamplerStage("repetition_penalty", init, apply, update)

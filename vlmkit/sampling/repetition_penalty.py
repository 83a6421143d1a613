"""Repetition penalty: make recent tokens less likely by a factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.sampling.history import (
    append_counts,
    append_window,
    init_counts,
    init_window,
    window_ids,
)
from vlmkit.sampling.per_row import Number
from vlmkit.tokens.ids import TokenIds, check_ids, ids_of


class RepetitionPenalty(StageConfig):
    """Divide positive and multiply negative logits of recent tokens."""

    kind: Literal["repetition_penalty"] = "repetition_penalty"
    penalty: Float = Field(gt=0.0, description="above 1 discourages repetition; 1 is off")
    context_size: Int | None = Field(
        default=20,
        ge=1,
        description="look at this many last tokens of prompt and answer; null looks at all",
    )
    excluded_ids: TokenIds = Field(
        default=(),
        description="tokens (ids, text or eos) that never count",
    )


class RepetitionPenaltyState(NamedTuple):
    """The tokens that are penalised."""

    seen: mx.array  # int32 [B, W ≤ context_size], the newest last, -1 where there is none yet;
    # or float32 [B, V], how often each id occurred


def repetition_penalty(config: RepetitionPenalty) -> SamplerStage:
    """Weaken every id in the window once: ``z / r`` where ``z > 0``, else ``z · r``.

    The window holds the last ``context_size`` tokens of prompt and answer together, or all of
    them, without the excluded ids.

    Example:
        >>> stage = repetition_penalty(RepetitionPenalty(penalty=2.0))
        >>> state = stage.init([np.array([0, 2, 2])], 3)
        >>> stage.apply(state, mx.array([[4.0, 4.0, -4.0]]), None).tolist()
        [[2.0, 4.0, -8.0]]

    Reference:
        Keskar et al., "CTRL: a conditional transformer language model", 2019, arXiv:1909.05858.
    """
    return repetition_penalty_of(config)(config.penalty)


def repetition_penalty_of(config: RepetitionPenalty) -> Callable[[Number], SamplerStage]:
    """Return the stage as a function of its factor; off where the config's is."""
    size, excluded_ids = config.context_size, ids_of(config.kind, config.excluded_ids)

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> RepetitionPenaltyState:
        check_ids(config.kind, excluded_ids, vocab_size)
        if size is None:
            return RepetitionPenaltyState(init_counts(prompts, vocab_size, excluded_ids))
        return RepetitionPenaltyState(init_window(prompts, size, vocab_size, excluded_ids))

    def update(state: RepetitionPenaltyState, token_ids: mx.array) -> RepetitionPenaltyState:
        if size is None:
            return RepetitionPenaltyState(append_counts(state.seen, token_ids, excluded_ids))
        return RepetitionPenaltyState(append_window(state.seen, token_ids, size, excluded_ids))

    def make(factor: Number) -> SamplerStage:
        def apply(
            state: RepetitionPenaltyState, logits: mx.array, uniform: mx.array | None
        ) -> mx.array:
            if config.penalty == 1.0:
                return logits
            if size is None:
                return mx.where(state.seen > 0, _weaken(logits, factor), logits)
            ids, has_any = window_ids(state.seen)
            old = mx.take_along_axis(logits, ids, axis=-1)
            new = mx.where(has_any, _weaken(old, factor), old)
            return mx.put_along_axis(logits, ids, new, axis=-1)

        return SamplerStage("repetition_penalty", init, apply, update)

    return make


def _weaken(logits: mx.array, factor: Number) -> mx.array:
    return mx.where(logits > 0, logits / factor, logits * factor)

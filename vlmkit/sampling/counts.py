"""What the presence and the frequency penalty share: how often each token occurred so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.sampling.history import (
    append_counts,
    append_window,
    init_counts,
    init_window,
    window_counts,
)
from vlmkit.tokens.ids import TokenIds, check_ids, ids_of


class CountingConfig(StageConfig):
    """Which tokens count."""

    context_size: Int | None = Field(
        default=None, ge=1, description="count only this many last tokens; null counts all"
    )
    include_prompt: bool = Field(
        default=False, description="count the prompt's tokens too, not only the answer's"
    )
    excluded_ids: TokenIds = Field(
        default=(),
        description="tokens (ids, text or eos) that never count",
    )


class CountState(NamedTuple):
    """The tokens counted so far."""

    seen: mx.array  # float32 [B, V], a count per id; or int32 [B, W ≤ context_size], the ids


def counting_stage(
    name: str, config: CountingConfig, penalise: Callable[[mx.array, mx.array], mx.array]
) -> SamplerStage:
    """Make a stage of ``penalise(logits [B, V], counts float32 [B, V])``."""
    size, excluded_ids = config.context_size, ids_of(name, config.excluded_ids)

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> CountState:
        check_ids(name, excluded_ids, vocab_size)
        counted = prompts if config.include_prompt else [np.zeros(0, np.int32)] * len(prompts)
        if size is None:
            return CountState(init_counts(counted, vocab_size, excluded_ids))
        return CountState(init_window(counted, size, vocab_size, excluded_ids))

    def apply(state: CountState, logits: mx.array, uniform: mx.array | None) -> mx.array:
        counts = state.seen if size is None else window_counts(state.seen, logits.shape[-1])
        return penalise(logits, counts)

    def update(state: CountState, token_ids: mx.array) -> CountState:
        if size is None:
            return CountState(append_counts(state.seen, token_ids, excluded_ids))
        return CountState(append_window(state.seen, token_ids, size, excluded_ids))

    return SamplerStage(name, init, apply, update)

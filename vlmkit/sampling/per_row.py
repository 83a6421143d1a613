"""One stage for rows with different values of its parameter, which then stands in the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage

Number = float | mx.array
"""A parameter: one for all rows, or float32 ``[B, 1]``."""


class PerRowState(NamedTuple):
    """Each row's own parameter, and the state of the stage that uses it."""

    value: mx.array  # float32 [B, 1]
    inner: Pytree


def per_row(value: float, stage_of: Callable[[Number], SamplerStage]) -> SamplerStage:
    """Make a stage that takes its parameter from the state, where ``init`` puts ``value``.

    States made with different values, joined, give each row its own.

    Args:
        value: what this stage's rows get.
        stage_of: the stage for a parameter; its name and its state do not depend on that.

    Example:
        >>> from vlmkit.sampling.frequency_penalty import FrequencyPenalty, frequency_penalty_of
        >>> from vlmkit.sampling.history import join_states
        >>> stages = [per_row(b, frequency_penalty_of(FrequencyPenalty(penalty=b))) for b in (1, 2)]
        >>> state = join_states([stage.init([[]], 2) for stage in stages])
        >>> state = stages[0].update(state, mx.array([1, 1]))
        >>> stages[0].apply(state, mx.zeros((2, 2)), None).tolist()
        [[0.0, -1.0], [0.0, -2.0]]
    """
    plain = stage_of(value)

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> PerRowState:
        return PerRowState(mx.full((len(prompts), 1), value), plain.init(prompts, vocab_size))

    def apply(state: PerRowState, logits: mx.array, uniform: mx.array | None) -> mx.array:
        return stage_of(state.value).apply(state.inner, logits, uniform)

    def update(state: PerRowState, token_ids: mx.array) -> PerRowState:
        return PerRowState(state.value, plain.update(state.inner, token_ids))

    def shortlist(state: PerRowState, logits: mx.array) -> tuple[mx.array, mx.array] | None:
        select = stage_of(state.value).shortlist
        return None if select is None else select(state.inner, logits)

    return plain._replace(
        init=init,
        apply=apply,
        update=update,
        shortlist=None if plain.shortlist is None else shortlist,
    )

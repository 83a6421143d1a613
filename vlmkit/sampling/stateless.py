"""What stages without state share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.tokens.ids import check_ids


def by_value(name: str, function: Callable[[mx.array], mx.array]) -> SamplerStage:
    """Make a stage of a function of the logits alone that doesn't care which id is where.

    Args:
        name: the stage's kind.
        function: float32 ``[B, N]`` to the same; ties are broken by the lowest index.
    """
    return SamplerStage(
        name=name,
        init=no_state,
        apply=lambda state, logits, uniform: function(logits),
        update=keep_state,
        by_value=True,
    )


def no_state(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> Pytree:
    """Start a stage that remembers nothing."""
    return ()


def no_state_of_ids(
    name: str, token_ids: Sequence[int]
) -> Callable[[Sequence[NDArray[np.int32]], int], Pytree]:
    """Make an ``init`` that remembers nothing, but refuses ids outside the vocabulary."""

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> Pytree:
        check_ids(name, token_ids, vocab_size)
        return ()

    return init


def keep_state(state: Pytree, token_ids: mx.array) -> Pytree:
    """Ignore the new tokens."""
    return state

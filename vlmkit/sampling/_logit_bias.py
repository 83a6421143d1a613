"""Logit bias: add a constant to chosen tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.configbase import Float, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.interface import Pytree
from vlmkit.sampling._stateless import keep_state
from vlmkit.stages import SamplerStage

TokenId = Annotated[int, Field(ge=0)]


class LogitBias(StageConfig):
    """Add a bias to the logits of some tokens."""

    kind: Literal["logit_bias"] = "logit_bias"
    bias: dict[TokenId, Float] = Field(description="token id: what is added to its logit")

    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.bias.items())))


def logit_bias(config: LogitBias) -> SamplerStage:
    """Add ``bias[i]`` to logit i.

    Raises:
        VlmkitError: at ``init``, for an id that is not in the vocabulary.

    Example:
        >>> stage = logit_bias(LogitBias(bias={1: -5.0}))
        >>> stage.apply((), mx.zeros((1, 3)), None).tolist()
        [[0.0, -5.0, 0.0]]
    """
    ids = mx.array(list(config.bias), dtype=mx.int32)[None, :]
    values = mx.array(list(config.bias.values()), dtype=mx.float32)[None, :]

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> Pytree:
        check_ids("logit_bias", config.bias, vocab_size)
        return ()

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        if not config.bias:
            return logits
        index = mx.broadcast_to(ids, (logits.shape[0], ids.shape[1]))
        biased = mx.take_along_axis(logits, index, axis=-1) + values
        return mx.put_along_axis(logits, index, biased, axis=-1)

    return SamplerStage("logit_bias", init, apply, keep_state)


def check_ids(name: str, token_ids: Sequence[int] | dict[int, float], vocab_size: int) -> None:
    """Refuse ids outside ``0 .. vocab_size - 1``."""
    if wrong := [token_id for token_id in token_ids if not 0 <= token_id < vocab_size]:
        raise VlmkitError(
            f"{name}: token id {', '.join(map(str, wrong[:5]))} is not in the vocabulary; "
            f"ids go from 0 to {vocab_size - 1}"
        )

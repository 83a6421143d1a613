"""Logit bias: add a constant to chosen tokens."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import StageConfig
from vlmkit.sampling.stateless import keep_state, no_state_of_ids
from vlmkit.tokens.ids import TokenBiases, ids_of


class LogitBias(StageConfig):
    """Add a bias to the logits of some tokens."""

    kind: Literal["logit_bias"] = "logit_bias"
    bias: TokenBiases = Field(description="token (id, text or eos): what is added to its logit")

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
    token_ids = ids_of("logit_bias", config.bias)
    ids = mx.array(token_ids, dtype=mx.int32)[None, :]
    values = mx.array(list(config.bias.values()), dtype=mx.float32)[None, :]

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        if not config.bias:
            return logits
        index = mx.broadcast_to(ids, (logits.shape[0], ids.shape[1]))
        biased = mx.take_along_axis(logits, index, axis=-1) + values
        return mx.put_along_axis(logits, index, biased, axis=-1)

    return SamplerStage("logit_bias", no_state_of_ids("logit_bias", token_ids), apply, keep_state)

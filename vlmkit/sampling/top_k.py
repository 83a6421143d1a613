"""Top-k: keep a fixed number of tokens."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.numeric.probabilities import keep_where
from vlmkit.sampling.numerics import largest, poison, scatter
from vlmkit.sampling.stateless import keep_state, no_state

_SHORT = 8  # a shortlist pays when it is at most an eighth of the vocabulary


class TopK(StageConfig):
    """Keep the k most likely tokens."""

    kind: Literal["top_k"] = "top_k"
    k: Int = Field(ge=1, description="how many tokens to keep; at or above the vocabulary: all")
    ties: Literal["exact", "all"] = Field(
        default="exact", description="exact: k tokens, the lowest ids; all: what ties with the k-th"
    )


def top_k(config: TopK) -> SamplerStage:
    """Keep exactly the k largest logits; ties are broken by the lowest id.

    With ``ties: all``, as in transformers and vLLM, every logit equal to the k-th stays too.

    Example:
        >>> stage = top_k(TopK(k=2))
        >>> stage.apply((), mx.array([[1.0, 3.0, 1.0, 0.0]]), None).tolist()
        [[1.0, 3.0, -inf, -inf]]

    Reference:
        Fan, Lewis, Dauphin, "Hierarchical neural story generation", ACL 2018, arXiv:1805.04833.
    """

    def select(logits: mx.array) -> tuple[mx.array, mx.array]:
        ids = largest(logits, config.k)
        return ids, mx.take_along_axis(logits, ids, axis=-1) + poison(logits)

    def shortlist(state: Pytree, logits: mx.array) -> tuple[mx.array, mx.array] | None:
        return select(logits) if config.k * _SHORT <= logits.shape[-1] else None

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        size = logits.shape[-1]
        return logits if config.k >= size else scatter(*select(logits), size)

    def apply_all(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        if config.k >= logits.shape[-1]:
            return logits
        _, chosen = select(logits)
        return keep_where(logits, logits >= mx.min(chosen, axis=-1, keepdims=True))

    if config.ties == "all":
        return SamplerStage("top_k", no_state, apply_all, keep_state, by_value=True)
    return SamplerStage("top_k", no_state, apply, keep_state, by_value=True, shortlist=shortlist)

"""DRY (don't repeat yourself): a penalty that grows with the length of the repeated sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.sampling.history import ENDLESS
from vlmkit.sampling.suffix_match import (
    SuffixMatchState,
    append_suffix_match,
    followers,
    init_suffix_match,
)
from vlmkit.tokens.ids import TokenIds, check_ids, ids_of

_MOST = 1e30  # a penalty stays finite, so a row never loses its last token


class Dry(StageConfig):
    """Penalise tokens that would extend a repetition."""

    kind: Literal["dry"] = "dry"
    multiplier: Float = Field(ge=0.0, description="penalty at the allowed length; 0 is off")
    base: Float = Field(default=1.75, ge=1.0, description="growth per repeated token")
    allowed_length: Int = Field(default=2, ge=1, description="repetitions this long are penalised")
    breaker_ids: TokenIds = Field(
        default=(),
        description="tokens (ids, text or eos) that end a sequence, such as '\\n'; never penalised",
    )
    context_size: Int | None = Field(
        default=1024,
        ge=2,
        description="look at this many last tokens of prompt and answer; null looks at all",
    )
    excluded_ids: TokenIds = Field(
        default=(),
        description="tokens (ids, text or eos) that never count",
    )


def dry(config: Dry) -> SamplerStage:
    """Subtract ``m · base^(n − allowed_length)`` where the token would follow n repeated ones.

    n is the longest suffix of the history that already occurred with this token after it; nothing
    happens for ``n < allowed_length``. No repetition reaches across a breaker, and a breaker itself
    is left alone. A breaker is one token: ``"\\n"`` is no other token that has a line break in it.

    Example:
        >>> stage = dry(Dry(multiplier=1.0, base=2.0, allowed_length=1))
        >>> state = stage.init([np.array([0, 1, 2, 0, 1])], 4)
        >>> stage.apply(state, mx.zeros((1, 4)), None).tolist()
        [[0.0, 0.0, -2.0, 0.0]]

    Reference:
        Weidmann, "DRY: a modern repetition penalty", 2024,
        github.com/oobabooga/text-generation-webui pull request 5677. Breakers as in llama.cpp,
        ``llama_sampler_dry_apply`` of src/llama-sampler.cpp.
    """
    size, excluded_ids = config.context_size, ids_of(config.kind, config.excluded_ids)
    allowed_length = min(config.allowed_length, ENDLESS)
    breaker_ids = ids_of(config.kind, config.breaker_ids)

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> SuffixMatchState:
        check_ids(config.kind, (*breaker_ids, *excluded_ids), vocab_size)
        return init_suffix_match(prompts, size, vocab_size, excluded_ids, breaker_ids)

    def apply(state: SuffixMatchState, logits: mx.array, uniform: mx.array | None) -> mx.array:
        if config.multiplier == 0.0:
            return logits
        ids, match = followers(state)
        excess = (match - allowed_length).astype(mx.float32)
        grown = mx.minimum(config.multiplier * mx.power(config.base, excess), _MOST)
        penalty = mx.where(excess >= 0, grown, 0.0)
        rows = mx.arange(logits.shape[0])[:, None]
        penalties = mx.zeros(logits.shape).at[rows, ids].maximum(penalty)
        if breaker_ids:
            index = mx.broadcast_to(mx.array([breaker_ids]), (len(logits), len(breaker_ids)))
            penalties = mx.put_along_axis(penalties, index, mx.array(0.0), axis=-1)
        return logits - penalties

    def update(state: SuffixMatchState, token_ids: mx.array) -> SuffixMatchState:
        return append_suffix_match(state, token_ids, size, excluded_ids, breaker_ids)

    return SamplerStage("dry", init, apply, update)

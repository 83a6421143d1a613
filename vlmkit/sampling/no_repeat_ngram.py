"""No-repeat n-gram: never complete an n-gram that has occurred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.sampling.history import ENDLESS
from vlmkit.sampling.suffix_match import (
    SuffixMatchState,
    append_suffix_match,
    followers,
    init_suffix_match,
)
from vlmkit.tokens.ids import TokenIds, check_ids, ids_of


class NoRepeatNgram(StageConfig):
    """Remove tokens that would repeat an n-gram."""

    kind: Literal["no_repeat_ngram"] = "no_repeat_ngram"
    n: Int = Field(ge=2, description="length of the n-gram in tokens")
    context_size: Int | None = Field(
        default=1024,
        ge=2,
        description="look at this many last tokens of prompt and answer; null looks at all",
    )
    excluded_ids: TokenIds = Field(
        default=(),
        description="tokens (ids, text or eos) that never count",
    )


def no_repeat_ngram(config: NoRepeatNgram) -> SamplerStage:
    """Set to −inf every token that followed an earlier copy of the last ``n − 1`` tokens.

    Example:
        >>> stage = no_repeat_ngram(NoRepeatNgram(n=2, context_size=8))
        >>> state = stage.init([np.array([0, 2, 1, 0])], 3)
        >>> stage.apply(state, mx.zeros((1, 3)), None).tolist()
        [[0.0, 0.0, -inf]]

    Reference:
        Paulus, Xiong, Socher, "A deep reinforced model for abstractive summarization", ICLR 2018,
        arXiv:1705.04304.
    """
    num_before = min(config.n - 1, ENDLESS)
    size, excluded_ids = config.context_size, ids_of(config.kind, config.excluded_ids)

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> SuffixMatchState:
        check_ids(config.kind, excluded_ids, vocab_size)
        return init_suffix_match(prompts, size, vocab_size, excluded_ids)

    def apply(state: SuffixMatchState, logits: mx.array, uniform: mx.array | None) -> mx.array:
        ids, match = followers(state)
        rows = mx.arange(logits.shape[0])[:, None]
        bound = mx.where(match >= num_before, -mx.inf, mx.inf)
        return logits.at[rows, ids].minimum(bound)

    def update(state: SuffixMatchState, token_ids: mx.array) -> SuffixMatchState:
        return append_suffix_match(state, token_ids, size, excluded_ids)

    return SamplerStage("no_repeat_ngram", init, apply, update)

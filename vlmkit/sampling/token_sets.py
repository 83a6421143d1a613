"""Hard rules on token ids: suppress some, allow only some, or hold some back for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.numeric.probabilities import keep_where
from vlmkit.sampling.history import ENDLESS
from vlmkit.sampling.stateless import keep_state, no_state_of_ids
from vlmkit.tokens.ids import TokenIds, check_ids, ids_of


class SuppressTokens(StageConfig):
    """Never draw these tokens."""

    kind: Literal["suppress_tokens"] = "suppress_tokens"
    token_ids: TokenIds = Field(description="tokens (ids, text or eos) that are removed")


class AllowedTokens(StageConfig):
    """Draw only these tokens."""

    kind: Literal["allowed_tokens"] = "allowed_tokens"
    token_ids: TokenIds = Field(min_length=1, description="tokens (ids, text or eos) that stay")


class MinNewTokens(StageConfig):
    """Don't draw these tokens before some number of tokens has been generated."""

    kind: Literal["min_new_tokens"] = "min_new_tokens"
    num_tokens: Int = Field(ge=0, description="how many tokens to generate first; 0 is off")
    token_ids: TokenIds = Field(description="tokens (ids, text or eos) held back")


class MinNewTokensState(NamedTuple):
    """How far each row is."""

    num_generated: mx.array  # int32 [B]


def suppress_tokens(config: SuppressTokens) -> SamplerStage:
    """Set the logits of the ids to −inf.

    Raises:
        VlmkitError: at ``init``, for an id that is not in the vocabulary.

    Example:
        >>> stage = suppress_tokens(SuppressTokens(token_ids=(1,)))
        >>> stage.apply((), mx.zeros((1, 3)), None).tolist()
        [[0.0, -inf, 0.0]]
    """

    token_ids = ids_of("suppress_tokens", config.token_ids)

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        return keep_where(logits, ~_members(token_ids, logits.shape[-1]))

    return SamplerStage(
        "suppress_tokens", no_state_of_ids("suppress_tokens", token_ids), apply, keep_state
    )


def allowed_tokens(config: AllowedTokens) -> SamplerStage:
    """Set the logits of all other ids to −inf.

    Raises:
        VlmkitError: at ``init``, for an id that is not in the vocabulary.

    Example:
        >>> stage = allowed_tokens(AllowedTokens(token_ids=(1,)))
        >>> stage.apply((), mx.zeros((1, 3)), None).tolist()
        [[-inf, 0.0, -inf]]
    """

    token_ids = ids_of("allowed_tokens", config.token_ids)

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        return keep_where(logits, _members(token_ids, logits.shape[-1]))

    return SamplerStage(
        "allowed_tokens", no_state_of_ids("allowed_tokens", token_ids), apply, keep_state
    )


def min_new_tokens(config: MinNewTokens) -> SamplerStage:
    """Set the logits of the ids to −inf while fewer than ``num_tokens`` have been generated.

    Raises:
        VlmkitError: at ``init``, for an id that is not in the vocabulary.

    Example:
        >>> stage = min_new_tokens(MinNewTokens(num_tokens=1, token_ids=(0,)))
        >>> state = stage.init([[5, 6]], 2)
        >>> stage.apply(state, mx.zeros((1, 2)), None).tolist()
        [[-inf, 0.0]]
        >>> stage.apply(stage.update(state, mx.array([1])), mx.zeros((1, 2)), None).tolist()
        [[0.0, 0.0]]
    """

    num_tokens = min(config.num_tokens, ENDLESS)
    held_ids = ids_of("min_new_tokens", config.token_ids)

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> MinNewTokensState:
        check_ids("min_new_tokens", held_ids, vocab_size)
        return MinNewTokensState(mx.zeros((len(prompts),), mx.int32))

    def apply(state: MinNewTokensState, logits: mx.array, uniform: mx.array | None) -> mx.array:
        late = (state.num_generated >= num_tokens)[:, None]
        return keep_where(logits, late | ~_members(held_ids, logits.shape[-1]))

    def update(state: MinNewTokensState, token_ids: mx.array) -> MinNewTokensState:
        return MinNewTokensState(state.num_generated + (token_ids >= 0))

    return SamplerStage("min_new_tokens", init, apply, update)


def _members(token_ids: Sequence[int], vocab_size: int) -> mx.array:
    """Return bool ``[1, V]``."""
    members = np.zeros((1, vocab_size), dtype=np.bool_)
    members[0, list(token_ids)] = True
    return mx.array(members)

"""End a row after a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Int, StageConfig


class MaxTokensConfig(StageConfig):
    """At most ``max_tokens`` tokens; 0 ends the row before its first token."""

    kind: Literal["max_tokens"] = "max_tokens"
    max_tokens: Int = Field(ge=0, description="Tokens to generate at most.")


def max_tokens(config: MaxTokensConfig) -> StoppingCriterion:
    """Build the criterion that ends a row after ``max_tokens`` tokens, with reason "length".

    Example:
        >>> criterion = max_tokens(MaxTokensConfig(max_tokens=1))
        >>> state, decision = criterion.init([5, 6])
        >>> state, decision = criterion.step(state, TokenEvent(7, "a", 1))
        >>> decision.finish.reason
        'length'
    """
    limit = config.max_tokens

    going, over = Decision(), Decision(finish=Finish("length", "max_tokens"))

    def init(prompt_ids: Sequence[int]) -> tuple[tuple[()], Decision]:
        return (), over if limit == 0 else going

    def step(state: tuple[()], event: TokenEvent) -> tuple[tuple[()], Decision]:
        return (), over if event.num_tokens >= limit else going

    return StoppingCriterion("max_tokens", init, step)

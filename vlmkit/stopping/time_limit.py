"""End a row after a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.errors import VlmkitError


class TimeLimitConfig(StageConfig):
    """At most so many seconds. How many tokens that is differs from run to run."""

    kind: Literal["time_limit"] = "time_limit"
    seconds: Float = Field(
        gt=0.0, description="since the row's prefill began; the token that passes it is the last"
    )


def time_limit(config: TimeLimitConfig) -> StoppingCriterion:
    """Build the criterion that ends a row at the first token after ``seconds``, reason "length".

    The clock is read once per token, so a row ends up to one step late, and never during prefill.

    Raises:
        VlmkitError: in ``step``, when the event does not say what time it is.

    Example:
        >>> criterion = time_limit(TimeLimitConfig(seconds=1.5))
        >>> state, _ = criterion.init([5, 6])
        >>> criterion.step(state, TokenEvent(7, "a", 1, elapsed_s=1.4))[1].finish
        >>> criterion.step(state, TokenEvent(7, "a", 1, elapsed_s=1.5))[1].finish.kind
        'time_limit'
    """
    going, over = Decision(), Decision(finish=Finish("length", "time_limit"))

    def init(prompt_ids: Sequence[int]) -> tuple[tuple[()], Decision]:
        return (), going

    def step(state: tuple[()], event: TokenEvent) -> tuple[tuple[()], Decision]:
        if event.elapsed_s is None:
            raise VlmkitError(
                f"time_limit: token {event.num_tokens} came without its elapsed_s; a criterion "
                "that holds others must hand on their `reads`, and the loop fill what they name"
            )
        return (), over if event.elapsed_s >= config.seconds else going

    return StoppingCriterion("time_limit", init, step, frozenset({"elapsed_s"}))

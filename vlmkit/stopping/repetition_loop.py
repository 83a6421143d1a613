"""End a row that says the same thing over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Int, StageConfig


class RepetitionLoopConfig(StageConfig):
    """A loop: one sequence of tokens, ``num_repeats`` times in a row and ``min_tokens`` long."""

    kind: Literal["repetition_loop"] = "repetition_loop"
    max_period: Int = Field(
        default=32, ge=1, le=1024, description="Tokens of the longest sequence that is looked for."
    )
    num_repeats: Int = Field(
        default=4, ge=2, description="Times that it has to stand there, the first included."
    )
    min_tokens: Int = Field(
        default=32,
        ge=1,
        description='Tokens of all repeats together, so that short runs ("...", a row of zeros) '
        "may pass.",
    )


class RepetitionLoopState(NamedTuple):
    """The tokens that the next ones are compared with, and how long they agree."""

    recent: tuple[int, ...]  # the last max_period tokens
    runs: tuple[int, ...]  # runs[p - 1]: last tokens that equal the ones p places before


def repetition_loop(config: RepetitionLoopConfig) -> StoppingCriterion:
    """Build the criterion that ends a row when its last tokens are a loop.

    Tokens x_1 … x_n end in a loop of period p when x_i = x_{i-p} for the last
    ``max((num_repeats - 1)·p, min_tokens - p)`` of them. The prompt does not count. ``matched`` is
    the shortest such period. All text is kept.

    Example:
        >>> config = RepetitionLoopConfig(num_repeats=2, min_tokens=4)
        >>> criterion = repetition_loop(config)
        >>> state, decision = criterion.init([])
        >>> for count, token_id in enumerate([9, 1, 2, 1, 2], 1):
        ...     state, decision = criterion.step(state, TokenEvent(token_id, "", count))
        >>> decision.finish
        Finish(reason='stop', kind='repetition_loop', matched=2, text_end=None, error=None)
    """
    periods = range(1, config.max_period + 1)
    needed = [
        max((config.num_repeats - 1) * period, config.min_tokens - period, 1) for period in periods
    ]

    def init(prompt_ids: Sequence[int]) -> tuple[RepetitionLoopState, Decision]:
        return RepetitionLoopState((), (0,) * config.max_period), Decision()

    def step(state: RepetitionLoopState, event: TokenEvent) -> tuple[RepetitionLoopState, Decision]:
        token_id, recent = event.token_id, state.recent
        runs = [
            run + 1 if earlier == token_id else 0
            for run, earlier in zip(state.runs, reversed(recent), strict=False)
        ]
        found = next(
            (
                period
                for period, run in zip(periods, runs, strict=False)
                if run >= needed[period - 1]
            ),
            None,
        )
        runs += [0] * (config.max_period - len(runs))
        following = RepetitionLoopState((*recent, token_id)[-config.max_period :], tuple(runs))
        finish = None if found is None else Finish("stop", "repetition_loop", found)
        return following, Decision(finish=finish)

    return StoppingCriterion("repetition_loop", init, step)

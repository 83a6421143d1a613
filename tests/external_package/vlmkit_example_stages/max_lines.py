"""End a row after a number of lines."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent


def max_lines(*, num_lines: int, newline: str = "\n") -> StoppingCriterion:
    """Keep the text before the ``num_lines``-th line break."""
    if num_lines < 1:
        raise ValueError(f"num_lines must be at least 1, got {num_lines}")
    if len(newline) != 1:  # a longer one could begin in text that is out already
        raise ValueError(f"newline must be one character, got {newline!r}")

    def init(prompt_ids: Sequence[int]) -> tuple[tuple[()], Decision]:
        return (), Decision()

    def step(state: tuple[()], event: TokenEvent) -> tuple[tuple[()], Decision]:
        parts = event.text.split(newline)
        if len(parts) <= num_lines:
            return (), Decision()
        end = len(newline.join(parts[:num_lines]))
        return (), Decision(finish=Finish("stop", "max_lines", newline, end))

    return StoppingCriterion("max_lines", init, step)

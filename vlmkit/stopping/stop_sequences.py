"""End a row when its text contains a stop string, wherever the token boundaries lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.stopping.text_stops import find_stop, held_from, text_stops
from vlmkit.tokens.ids import StopTexts


class StopSequencesConfig(StageConfig):
    """Strings that end a row. With ``include`` the string stays in the text."""

    kind: Literal["stop_sequences"] = "stop_sequences"
    sequences: StopTexts = Field(
        min_length=1, description="Texts that end a row, however the model spells them in tokens."
    )
    include: bool = Field(
        default=False, description="Whether the text keeps the one that ended it."
    )
    min_tokens: Int = Field(
        default=0,
        ge=0,
        description="Tokens that come first: a stop string that is complete within them does not "
        "count.",
    )


class StopSequencesState(NamedTuple):
    """How far the text was searched."""

    start: int  # a stop string may begin at this character at the earliest
    after: int = 0  # and ends behind this one


def stop_sequences(config: StopSequencesConfig) -> StoppingCriterion:
    """Build the criterion that ends a row at the first stop string in its text.

    The text is cut before the stop string (after it with ``include``), also when its last token
    holds more. Of several stop strings that one token completes, the one that begins first counts,
    of equal ones the longest. Text that may yet become a stop string is held back. Where another
    criterion vetoes this one (inside a thinking block), no stop string may begin. The first
    ``min_tokens`` tokens never end the row; a stop string that begins in them may, once a later
    token completes it.

    Each token costs time in the new characters and the longest stop string, not in all text.

    Example:
        >>> criterion = stop_sequences(StopSequencesConfig(sequences=("END",)))
        >>> state, _ = criterion.init([])
        >>> state, decision = criterion.step(state, TokenEvent(1, "the E", 1))
        >>> decision.hold_from
        4
        >>> state, decision = criterion.step(state, TokenEvent(2, "the END.", 2))
        >>> decision.finish
        Finish(reason='stop', kind='stop_sequences', matched='END', text_end=4, error=None)

    Reference:
        ``min_tokens`` as in vLLM, vllm/v1/engine/detokenizer.py.
    """
    stops = text_stops(config.sequences)

    def init(prompt_ids: Sequence[int]) -> tuple[StopSequencesState, Decision]:
        return StopSequencesState(0), Decision()

    def step(state: StopSequencesState, event: TokenEvent) -> tuple[StopSequencesState, Decision]:
        text = event.text
        if "stop_sequences" in event.vetoed:
            return StopSequencesState(len(text)), Decision()
        early = event.num_tokens <= config.min_tokens
        match = None if early else find_stop(stops, text, state.start, state.after)
        if match is None:
            held = held_from(stops, text, state.start)
            following = StopSequencesState(
                len(text) if held is None else held, len(text) if early else state.after
            )
            return following, Decision(hold_from=None if config.include else held)
        begin, matched = match
        end = begin + len(matched) if config.include else begin
        return StopSequencesState(len(text)), Decision(
            finish=Finish("stop", "stop_sequences", matched, end)
        )

    return StoppingCriterion("stop_sequences", init, step)

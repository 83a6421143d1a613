"""End a row at a sequence of token ids, however it reads as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.tokens.ids import TokenSequences, ids_of
from vlmkit.tokens.sequences import advance, token_sequence


class StopTokenIdsConfig(StageConfig):
    """Sequences of token ids that end a row."""

    kind: Literal["stop_token_ids"] = "stop_token_ids"
    sequences: TokenSequences = Field(
        min_length=1,
        description="Sequences of tokens (text, or a list of ids and texts); each has to come "
        "whole, after the prompt.",
    )
    include: bool = Field(
        default=False, description="Whether the text keeps what the sequence reads as."
    )
    min_tokens: Int = Field(
        default=0,
        ge=0,
        description="Tokens that come first: a sequence that is complete within them does not "
        "count, and one of a single token is not drawn.",
    )


class StopTokenIdsState(NamedTuple):
    """What the last tokens may become."""

    matched: tuple[int, ...]  # per sequence: how many of its ids the row ends with
    ends: tuple[int, ...]  # where the text ended before each of the last tokens, and after all


def stop_token_ids(config: StopTokenIdsConfig) -> StoppingCriterion:
    """Build the criterion that ends a row at the first sequence of ids that is complete.

    The text is cut where it stood before the sequence (after it with ``include``). Of several
    sequences that one token completes, the longest counts. Text of what may yet become one is held
    back. Where another criterion vetoes this one (inside a thinking block), no sequence may begin.
    The first ``min_tokens`` tokens never end the row.

    Example:
        >>> criterion = stop_token_ids(StopTokenIdsConfig(sequences=((5, 6),)))
        >>> state, _ = criterion.init([])
        >>> state, decision = criterion.step(state, TokenEvent(5, "a", 1))
        >>> decision.hold_from
        0
        >>> criterion.step(state, TokenEvent(6, "ab", 2))[1].finish
        Finish(reason='stop', kind='stop_token_ids', matched=(5, 6), text_end=0, error=None)
    """
    sequences = [token_sequence(ids_of(config.kind, ids)) for ids in config.sequences]
    longest = max(len(sequence.ids) for sequence in sequences)
    none = (0,) * len(sequences)

    def init(prompt_ids: Sequence[int]) -> tuple[StopTokenIdsState, Decision]:
        return StopTokenIdsState(none, (0,)), Decision()

    def step(state: StopTokenIdsState, event: TokenEvent) -> tuple[StopTokenIdsState, Decision]:
        length = len(event.text)
        if "stop_token_ids" in event.vetoed:
            return StopTokenIdsState(none, (length,)), Decision()
        matched = tuple(
            advance(sequence, count, event.token_id)
            for sequence, count in zip(sequences, state.matched, strict=True)
        )
        ends = (*state.ends, length)[-longest - 1 :]
        complete = [
            sequence.ids
            for sequence, count in zip(sequences, matched, strict=True)
            if count == len(sequence.ids)
        ]
        if complete and event.num_tokens <= config.min_tokens:
            matched = tuple(
                sequence.borders[-1] if count == len(sequence.ids) else count
                for sequence, count in zip(sequences, matched, strict=True)
            )
        elif complete:
            found = max(complete, key=len)
            end = length if config.include else ends[-len(found) - 1]
            finish = Finish("stop", "stop_token_ids", found, end)
            return StopTokenIdsState(none, (length,)), Decision(finish=finish)
        begun = max(matched)
        held = ends[-begun - 1] if begun and not config.include else None
        return StopTokenIdsState(matched, ends), Decision(hold_from=held)

    return StoppingCriterion("stop_token_ids", init, step)

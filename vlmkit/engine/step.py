"""A decode step of a batch: move its rows, draw their next tokens, read what these mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import mlx.core as mx

from vlmkit.contracts.stages import Decision, StepTrace
from vlmkit.engine.batch import Batch, Logits, select, with_failures
from vlmkit.engine.rows import RowState, Step, Taken, apply_decisions, observe_token
from vlmkit.engine.searching import advance_searches
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import draw_tokens, update_sections


class Drawn(NamedTuple):
    """The token that each row takes next, and how it came about."""

    sampled: mx.array  # int32 [B], as drawn
    tokens: mx.array  # int32 [B], after forcing
    logits: Logits  # that ``sampled`` was drawn from
    traces: tuple[tuple[mx.array, ...], ...]  # per row: logits [V] after each stage, if traced


def move(
    method: Method, batch: Batch
) -> tuple[Batch | None, Sequence[int | None] | None, list[Step]]:
    """Let searches move their rows.

    Returns:
        The rows that go on, the token that a search gave each, and the steps that are certain.
    """
    if all(row.search is None for row in batch.rows):
        return batch, None, []
    moves, sections, steps = advance_searches(batch)
    after = select(method, batch._replace(sections=sections), [one.source for one in moves])
    if after is not None:
        after = after._replace(rows=tuple(one.row for one in moves))
    return after, [one.token_id for one in moves], steps


def draw(batch: Batch, given: Sequence[int | None] | None) -> tuple[Batch, Drawn]:
    """Draw the tokens of the rows that no search gave one."""
    rows, logits = batch.rows, batch.logits
    draws = draw_tokens(
        batch.sections,
        logits.entering,
        [row.spec.sampler for row in rows],
        [row.num_tokens for row in rows],
        traced=[row.spec.trace for row in rows],
        given=given,
    )
    free = Decision()  # a search has seen to its rows' decisions
    decisions = [free if row.search is not None else row.decision for row in rows]
    tokens = apply_decisions(draws.sampled, decisions)
    mx.async_eval(tokens)  # type: ignore[no-untyped-call]
    sections, failures = update_sections(draws.sections, tokens)
    rows = with_failures(rows, {**failures, **draws.failures})
    drawn = Drawn(draws.sampled, tokens, logits, draws.traces)
    return batch._replace(rows=rows, sections=sections), drawn


def observe(rows: Sequence[RowState], drawn: Drawn) -> tuple[tuple[RowState, ...], list[Step]]:
    """Read the tokens, which waits for the device, and say what each means for its row."""
    if all(row.search is not None for row in rows):
        return tuple(rows), []
    sampled, tokens = (cast("list[int]", ids.tolist()) for ids in (drawn.sampled, drawn.tokens))
    doubts: Any = None if drawn.logits.doubts is None else drawn.logits.doubts.tolist()
    after, steps = [], []
    for place, row in enumerate(rows):
        if row.search is None:
            entropy, confidence = (None, None) if doubts is None else doubts[place]
            taken = Taken(
                sampled_id=sampled[place],
                token_id=tokens[place],
                logits=drawn.logits.own[place],
                entropy=entropy,
                confidence=confidence,
                trace=_trace(row, place, drawn, sampled[place]),
            )
            row, step = observe_token(row, taken)
            steps.append(step)
        after.append(row)
    return tuple(after), steps


def _trace(row: RowState, place: int, drawn: Drawn, sampled_id: int) -> StepTrace | None:
    if not row.spec.trace or row.failure is not None:
        return None
    named = [("model", drawn.logits.own[place])]
    if row.spec.others is not None:
        named.append(("contrast", drawn.logits.entering[place]))
    stages = [stage.name for stage in row.spec.sampler.chain.stages]
    named += zip(stages, drawn.traces[place], strict=True)
    names, logits = zip(*named, strict=True)
    return StepTrace(names, logits, sampled_id)

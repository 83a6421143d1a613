"""A decode step of a batch: draw its rows' next tokens, read what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import mlx.core as mx

from vlmkit.contracts.stages import Decision, StepTrace
from vlmkit.engine.batch import Batch, Logits, with_failures
from vlmkit.engine.rows import RowState, Step, Taken, apply_decisions, observe_token
from vlmkit.sampling.sections import draw_tokens, update_sections


class Drawn(NamedTuple):
    """The token that each row takes next, and how it came about."""

    sampled: mx.array  # int32 [B], as drawn
    tokens: mx.array  # int32 [B], after forcing
    logits: Logits  # that ``sampled`` was drawn from
    traces: tuple[tuple[mx.array, ...], ...]  # per row: logits [V] after each stage, if traced


def draw(batch: Batch, given: Sequence[int | None]) -> tuple[Batch, Drawn]:
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
    decisions = [
        row.decision if one is None else free for row, one in zip(rows, given, strict=True)
    ]
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

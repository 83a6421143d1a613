"""Rows that belong to a search: their logits go in, the rows to go on with come out.

A search's rows are ordinary rows of the batch, so its forward passes are those of all other rows.
What it decides on the host is which row continues which, and with what token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import mlx.core as mx

from vlmkit.contracts.stages import Decision
from vlmkit.engine.batch import Batch, Logits, select, with_failures
from vlmkit.engine.rows import (
    RowState,
    Searching,
    Step,
    Taken,
    end_row,
    fail_row,
    nothing_to_draw,
    observe_token,
)
from vlmkit.numeric.probabilities import log_softmax
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import Section, run_section, slices
from vlmkit.search import Extended, Outcome, SearchStart, SearchStep


class Move(NamedTuple):
    """A row of the next batch."""

    source: int  # the place in this batch of the row that it continues
    row: RowState
    token_id: int | None = None  # the token it takes; None: one is drawn


def start_search(row: RowState, prompt: mx.array | None) -> RowState:
    """Begin a row's search, if it has one, after its prompt: hidden states ``[1, T, hidden]``."""
    if row.search is None:
        return row
    hidden = None if prompt is None else prompt[0]
    start = SearchStart(row.spec.token_limit, row.spec.num_eos, hidden)
    return row._replace(searching=Searching(row.search.init(start)))


def advance_searches(
    method: Method, batch: Batch
) -> tuple[Batch | None, Sequence[int | None], list[Step]]:
    """Let each search of a batch decide how its rows go on; waits for the device.

    Returns:
        The rows that go on, the token that a search gave each, and the steps that are certain.
    """
    if all(batch.rows[place.start].search is None for place in slices(batch.sections)):
        return batch, [None] * len(batch.rows), []
    moves, after, steps = list[Move](), list[Section](), list[Step]()
    for section, place in zip(batch.sections, slices(batch.sections), strict=True):
        rows = batch.rows[place]
        if rows[0].search is None:
            after.append(section)
            moves += [Move(source, row) for source, row in enumerate(rows, start=place.start)]
            continue
        section, rows, chained = _run_chain(section, rows, batch.logits.entering[place])
        after.append(section)
        for _, group in groupby(enumerate(rows), key=lambda placed: placed[1].number):
            (first, *_), paths = zip(*group, strict=True)
            own = slice(place.start + first, place.start + first + len(paths))
            logits = Logits._make(None if part is None else part[own] for part in batch.logits)
            try:
                moved, certain = _advance(paths, logits, chained[first : first + len(paths)])
            except Exception as error:  # a criterion of a third party raises what it likes
                moved, certain = [], [end_row(fail_row(paths[0], error))]
            moves += [move._replace(source=own.start + move.source) for move in moved]
            steps += certain
    sources, rows = [move.source for move in moves], tuple(move.row for move in moves)
    going = select(method, batch._replace(sections=tuple(after)), sources)
    given = [move.token_id for move in moves]
    return None if going is None else going._replace(rows=rows), given, steps


def _run_chain(
    section: Section, rows: tuple[RowState, ...], logits: mx.array
) -> tuple[Section, tuple[RowState, ...], mx.array]:
    """What the chain leaves of the logits, float32 ``[K, V]``; rows fail where it does."""
    assert rows[0].search is not None
    entering = log_softmax(logits) if rows[0].search.from_logprobs else logits
    samplers = [row.spec.sampler for row in rows]
    try:
        section, left = run_section(section, entering, samplers, [row.num_tokens for row in rows])
    except Exception as error:  # a stage of a third party raises what it likes
        return section, with_failures(rows, dict.fromkeys(range(len(rows)), error)), entering
    return section, rows, left


def _advance(
    rows: Sequence[RowState], logits: Logits, chained: mx.array
) -> tuple[list[Move], list[Step]]:
    """Let one search decide.

    Args:
        rows: its K paths.
        logits: theirs.
        chained: float32 ``[K, V]``, what the sampler chain leaves of them.

    Returns:
        The rows to go on with (none: it has ended), and the steps that are certain.

    Raises:
        VlmkitError: no row has a token that can be taken, or logits are NaN.
    """
    search, searching = rows[0].search, rows[0].searching
    assert search is not None
    assert searching is not None
    for row in rows:
        if row.failure is not None:
            raise row.failure
    largest = cast("list[float]", mx.max(chained, axis=-1).tolist())
    broken = [not math.isfinite(value) and value != -math.inf for value in largest]
    goes_on = [  # it has a token to take, or needs none: it has finished, or one is forced
        value > -math.inf or not row.goes_on or row.decision.forced_id is not None
        for value, row in zip(largest, rows, strict=True)
    ]
    if any(broken) or not any(goes_on):
        raise nothing_to_draw(rows[broken.index(True) if any(broken) else 0])
    # A row without any token left goes no further; the others do.
    dead = mx.array(largest)[:, None] == -mx.inf
    logprobs = mx.where(dead, -mx.inf, log_softmax(chained))
    logprobs = decided(logprobs, [row.decision for row in rows])
    doubts: Any = None if logits.doubts is None else logits.doubts.tolist()

    def extend(path: int, token_id: int) -> Extended:
        entropy, confidence = (None, None) if doubts is None else doubts[path]
        taken = Taken(token_id, token_id, logits.own[path], entropy, confidence)
        row, step = observe_token(rows[path]._replace(searching=None), taken)
        if step.finish is not None and step.finish.error is not None:
            raise step.finish.error
        *before, last = (*row.trail, step)
        if before:  # only the newest step holds on to its logits
            before[-1] = before[-1]._replace(logits=None)
        return Extended(row._replace(trail=(*before, last)), step.finish is not None)

    given = SearchStep(logprobs, logits.hidden if search.needs_hidden else None)
    state, outcome = search.advance(searching.state, given, extend)
    steps = _certain_steps(outcome, searching.num_emitted)
    after = Searching(state, searching.num_emitted + len(steps))
    moves = [
        Move(path, row._replace(searching=after), token_id)
        for path, token_id, row in zip(outcome.rows, outcome.token_ids, outcome.paths, strict=True)
    ]
    return moves, steps


def decided(logprobs: mx.array, decisions: Sequence[Decision]) -> mx.array:
    """Return the distribution of the token really taken, float32 ``[K, V]``.

    A decision maps what is drawn to what is taken; here it maps the distribution likewise: each
    token that may be taken gets the mass of all that lead to it.
    """
    if not any(one.overrides_draws for one in decisions):
        return logprobs
    return mx.stack([_decide(logprobs[row], one) for row, one in enumerate(decisions)])


def _decide(logprobs: mx.array, decision: Decision) -> mx.array:
    overrides, forced = dict(decision.overrides), decision.forced_id
    masses: dict[int, list[mx.array]] = {}
    for drawn_id, taken_id in overrides.items():
        masses.setdefault(taken_id, []).append(logprobs[drawn_id])
    left = mx.full(logprobs.shape, -mx.inf)
    if forced is None:
        for taken_id in masses.keys() - overrides.keys():
            masses[taken_id].append(logprobs[taken_id])
        if overrides:
            ids = mx.array(list(overrides))
            left = mx.put_along_axis(logprobs, ids, left[: len(overrides)], axis=0)
        else:
            left = logprobs
    else:
        named = [mx.exp(logprobs[drawn_id]) for drawn_id in overrides]
        rest = mx.log1p(-mx.minimum(sum(named, start=mx.array(0.0)), 1.0))
        masses.setdefault(forced, []).append(rest)
    if not masses:
        return left
    values = mx.stack([mx.logsumexp(mx.stack(parts)) for parts in masses.values()])
    return mx.put_along_axis(left, mx.array(list(masses)), values, axis=0)


def _certain_steps(outcome: Outcome, num_emitted: int) -> list[Step]:
    """The steps that an outcome makes certain, without those given out before."""
    if outcome.done:
        steps = outcome.best[0].path.trail[num_emitted:]
        results = tuple((one.score, one.path.trail) for one in outcome.best)
        return [*steps[:-1], steps[-1]._replace(hypotheses=results)]
    return list(outcome.committed[-1].trail[num_emitted:]) if outcome.committed else []

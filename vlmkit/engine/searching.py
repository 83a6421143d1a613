"""Rows that belong to a search: their logits go in, the rows to go on with come out.

A search's rows are ordinary rows of the batch, so its forward passes are those of all other rows.
What it decides on the host is which row continues which, and with what token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import mlx.core as mx

from vlmkit.contracts.stages import Decision
from vlmkit.engine.rows import RowState, Step, Taken, Trail, nothing_to_draw, observe_token
from vlmkit.engine.streams import RowLogits
from vlmkit.numeric.probabilities import log_softmax
from vlmkit.search import Extended, Outcome, SearchStart, SearchStep


class Searching(NamedTuple):
    """A request that is being searched for."""

    state: Any  # the search's own
    num_emitted: int  # steps that were given out


class Move(NamedTuple):
    """A row of the next batch."""

    source: int  # the place in this batch of the row that it continues
    row: RowState
    token_id: int | None  # the token it takes; None: one is drawn


def start_search(row: RowState, prompt: mx.array | None) -> Searching:
    """Begin a search after its prompt, whose hidden states are ``[1, T, hidden]`` if needed."""
    search = row.search
    assert search is not None
    hidden = None if prompt is None else prompt[0]
    start = SearchStart(row.spec.token_limit, row.spec.num_eos, hidden)
    return Searching(search.init(start), 0)


def advance_search(
    searching: Searching,
    rows: Sequence[RowState],
    sources: Sequence[int],
    logits: RowLogits,
    chained: mx.array,
) -> tuple[Searching, list[Move], list[Step]]:
    """Let a search decide how its rows go on; waits for the device.

    Args:
        searching: the search so far.
        rows: its K paths.
        sources: their places in the batch.
        logits: of the batch.
        chained: float32 ``[K, V]``, what the sampler chain leaves of the rows' logits.

    Returns:
        The search, the rows to go on with (none: it has ended), and the steps that are certain.

    Raises:
        VlmkitError: no row has a token that can be taken, or logits are NaN.
    """
    search = rows[0].search
    assert search is not None
    largest = cast("list[float]", mx.max(chained, axis=-1).tolist())
    broken = [not math.isfinite(value) and value != -math.inf for value in largest]
    goes_on = [
        value > -math.inf or _needs_none(row.decision)
        for value, row in zip(largest, rows, strict=True)
    ]
    if any(broken) or not any(goes_on):
        raise nothing_to_draw(rows[broken.index(True) if any(broken) else 0])
    # A row without any token left goes no further; the others do.
    dead = mx.array(largest)[:, None] == -mx.inf
    logprobs = mx.where(dead, -mx.inf, log_softmax(chained))
    logprobs = decided(logprobs, [row.decision for row in rows])
    places = mx.array(list(sources))
    hidden = logits.hidden[places] if search.needs_hidden else None
    doubts: Any = None if logits.doubts is None else logits.doubts[places].tolist()

    def extend(path: int, token_id: int) -> Extended:
        entropy, confidence = (None, None) if doubts is None else doubts[path]
        taken = Taken(token_id, token_id, logits.own[sources[path]], entropy, confidence)
        row, step = observe_token(rows[path], taken)
        if step.finish is not None and step.finish.error is not None:
            raise step.finish.error
        before = row.trail
        if before is not None:  # only the newest step holds on to its logits
            before = before._replace(step=before.step._replace(logits=None))
        return Extended(row._replace(trail=Trail(step, before)), step.finish is not None)

    state, outcome = search.advance(searching.state, SearchStep(logprobs, hidden), extend)
    steps = _certain_steps(outcome, searching.num_emitted)
    moves = [
        Move(sources[path], row, token_id)
        for path, token_id, row in zip(outcome.rows, outcome.token_ids, outcome.paths, strict=True)
    ]
    return Searching(state, searching.num_emitted + len(steps)), moves, steps


def _needs_none(decision: Decision) -> bool:
    """Whether a row can do without a token of the chain's: it has finished, or one is forced."""
    return decision.finish is not None or decision.forced_id is not None


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
        steps = _last_steps(outcome.best[0].path, num_emitted)
        results = tuple((one.score, tuple(_last_steps(one.path, 0))) for one in outcome.best)
        return [*steps[:-1], steps[-1]._replace(hypotheses=results)]
    return _last_steps(outcome.committed[-1], num_emitted) if outcome.committed else []


def _last_steps(path: RowState, num_before: int) -> list[Step]:
    """The steps of a path behind its first ``num_before``, in order."""
    steps: list[Step] = []
    here = path.trail
    while here is not None and here.step.num_tokens > num_before:
        steps.append(here.step)
        here = here.before
    return steps[::-1]

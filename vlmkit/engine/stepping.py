"""A decode step of a batch: launch the forward pass, observe the tokens, choose the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from vlmkit.engine.lanes import (
    Lane,
    RowLogits,
    combine_allowed,
    join_lanes,
    select_lanes,
    select_logits,
    step_lanes,
)
from vlmkit.engine.rows import RowState, Step, Taken, apply_decisions, observe_token
from vlmkit.engine.sampler_groups import (
    SamplerGroup,
    allowed_logits,
    apply_chain,
    draw_tokens,
    join_groups,
    select_groups,
    set_hosts,
    update_groups,
)
from vlmkit.engine.searching import Move, Path, Searching, advance_search
from vlmkit.numerics import entropy, log_softmax
from vlmkit.stages import StepTrace


class Drawn(NamedTuple):
    """The token that each row in flight is about to take, and how it came about."""

    sampled: mx.array  # int32 [B], as drawn
    tokens: mx.array  # int32 [B], after forcing
    logits: RowLogits  # that ``sampled`` was drawn from
    doubts: mx.array | None  # float32 [B, 2]: entropy and confidence, where a criterion reads them
    traces: Mapping[int, tuple[mx.array, ...]]  # of the rows that are traced


class Flight(NamedTuple):
    """Rows after a forward pass, before their next tokens are chosen."""

    paths: tuple[Path, ...]
    lanes: tuple[Lane, ...]
    groups: tuple[SamplerGroup, ...]
    logits: RowLogits
    searches: Mapping[int, Searching]  # by place of the request in the order of the specs


class Batch(NamedTuple):
    """Rows and the tokens they take: what the next forward pass starts from."""

    paths: tuple[Path, ...]
    lanes: tuple[Lane, ...]
    groups: tuple[SamplerGroup, ...]
    drawn: Drawn
    searches: Mapping[int, Searching]

    @property
    def num_requests(self) -> int:
        """A search has several rows."""
        return len({path.row.row for path in self.paths})


def launch(batch: Batch) -> Flight:
    """Build the graph of the forward pass over the batch's tokens."""
    rows = [path.row for path in batch.paths]
    lanes, logits = step_lanes(
        batch.lanes,
        batch.drawn.tokens,
        [row.spec.contrast for row in rows],
        [row.num_tokens + (row.spec.search is None) for row in rows],
    )
    return Flight(batch.paths, lanes, batch.groups, logits, batch.searches)


def observe(paths: Sequence[Path], drawn: Drawn) -> tuple[tuple[Path, ...], list[Step]]:
    """Read the tokens that were drawn; a search has seen its own when it chose them."""
    if all(path.row.spec.search is not None for path in paths):
        return tuple(paths), []
    sampled, tokens = to_ids(drawn.sampled), to_ids(drawn.tokens)
    doubts = _to_floats(drawn.doubts)
    after, steps = [], []
    for place, path in enumerate(paths):
        row = path.row
        if row.spec.search is None:
            taken = Taken(
                sampled_id=sampled[place],
                token_id=tokens[place],
                logits=drawn.logits.own[place],
                trace=_trace(row, place, drawn, sampled[place]),
            )
            if doubts is not None:
                taken = taken._replace(entropy=doubts[place][0], confidence=doubts[place][1])
            row, step = observe_token(row, taken)
            steps.append(step)
        after.append(path._replace(row=row))
    return tuple(after), steps


def _trace(row: RowState, place: int, drawn: Drawn, sampled_id: int) -> StepTrace | None:
    if not row.spec.trace:
        return None
    names = ["model", *(["contrast"] if row.spec.contrast is not None else [])]
    logits = (drawn.logits.own[place], drawn.logits.combined[place])[: len(names)]
    names += [stage.name for stage in row.spec.sampler.chain.stages]
    return StepTrace(tuple(names), (*logits, *drawn.traces[place]), sampled_id)


def choose(flight: Flight) -> tuple[Batch | None, list[Step]]:
    """Choose the rows' next tokens: None where no row goes on, and the steps that are certain."""
    paths, logits = flight.paths, flight.logits
    groups = set_hosts(flight.groups, [path.row.hosts for path in paths])
    if logits.contrasted and (allowed := allowed_logits(groups, logits.own)):
        logits = combine_allowed(logits, allowed)
    reading = frozenset[str]().union(*(path.row.spec.stopping.reads for path in paths))
    doubts = _doubts(logits.own) if reading & {"entropy", "confidence"} else None
    moves, searches, steps = _moves(flight._replace(groups=groups, logits=logits), doubts)
    if not moves:
        return None, steps
    lanes, sources = flight.lanes, [move.source for move in moves]
    del flight
    if sources != list(range(len(paths))):
        lanes, groups = select_lanes(lanes, sources), select_groups(groups, sources)
        logits = select_logits(logits, sources)
        doubts = None if doubts is None else doubts[mx.array(sources)]
    rows = [move.path.row for move in moves]
    draws = draw_tokens(
        groups,
        logits.combined,
        [row.spec.sampler for row in rows],
        [row.num_tokens for row in rows],
        [place for place, row in enumerate(rows) if row.spec.trace],
    )
    given = [move.token_id for move in moves]
    tokens = draws.sampled
    if all(token_id is None for token_id in given):
        tokens = apply_decisions(tokens, rows)
    elif all(token_id is not None for token_id in given):
        tokens = mx.array(given, mx.int32)
    else:
        fixed = mx.array([-1 if token_id is None else token_id for token_id in given], mx.int32)
        tokens = mx.where(fixed >= 0, fixed, apply_decisions(tokens, rows))
    mx.async_eval(tokens)  # type: ignore[no-untyped-call]
    drawn = Drawn(draws.sampled, tokens, logits, doubts, draws.traces)
    next_paths = tuple(move.path for move in moves)
    return Batch(next_paths, lanes, update_groups(draws.groups, tokens), drawn, searches), steps


def _moves(
    flight: Flight, doubts: mx.array | None
) -> tuple[list[Move], dict[int, Searching], list[Step]]:
    """Which rows go on, and with what; finished rows are left out."""
    paths, rows = flight.paths, [path.row for path in flight.paths]
    moves: list[Move] = []
    steps: list[Step] = []
    searches: dict[int, Searching] = {}
    for place, row in enumerate(rows):
        if row.spec.search is None:
            if row.decision.finish is None:
                moves.append(Move(place, paths[place], None))
            continue
        if row.row in searches:
            continue
        sources = [other for other, one in enumerate(rows) if one.row == row.row]
        logits = flight.logits.combined
        chained = apply_chain(
            flight.groups,
            log_softmax(logits) if row.spec.search.from_logprobs else logits,
            [one.spec.sampler for one in rows],
            [one.num_tokens for one in rows],
            sources,
        )
        searches[row.row], own_moves, own_steps = advance_search(
            flight.searches[row.row],
            [paths[source] for source in sources],
            sources,
            flight.logits,
            chained,
            None if doubts is None else _to_floats(doubts[mx.array(sources)]),
        )
        moves += own_moves
        steps += own_steps
    return moves, searches, steps


def _doubts(logits: mx.array) -> mx.array:
    """Entropy in nats and largest probability of each row, float32 ``[B, 2]``."""
    logprobs = log_softmax(logits)
    largest = mx.exp(mx.max(logprobs, axis=-1, keepdims=True))
    return mx.concatenate([entropy(logprobs), largest], axis=-1)


def _to_floats(doubts: mx.array | None) -> list[tuple[float, float]] | None:
    return (
        None if doubts is None else [(a, b) for a, b in cast("list[list[float]]", doubts.tolist())]
    )


def join_batches(first: Batch, second: Batch) -> Batch:
    """Put the rows of two batches into one."""
    one, two, offset = first.drawn, second.drawn, len(first.paths)
    own = mx.concatenate([one.logits.own, two.logits.own])
    is_own = one.logits.own is one.logits.combined and two.logits.own is two.logits.combined
    combined = own if is_own else mx.concatenate([one.logits.combined, two.logits.combined])
    hidden = mx.concatenate([one.logits.hidden, two.logits.hidden])
    doubts = None
    if one.doubts is not None or two.doubts is not None:
        parts = (d.doubts if d.doubts is not None else _doubts(d.logits.own) for d in (one, two))
        doubts = mx.concatenate(list(parts))
    return Batch(
        paths=first.paths + second.paths,
        lanes=join_lanes(first.lanes, second.lanes, offset),
        groups=join_groups(first.groups, second.groups, offset),
        drawn=Drawn(
            sampled=mx.concatenate([one.sampled, two.sampled]),
            tokens=mx.concatenate([one.tokens, two.tokens]),
            logits=RowLogits(own, combined, hidden),
            doubts=doubts,
            traces={**one.traces, **{row + offset: t for row, t in two.traces.items()}},
        ),
        searches={**first.searches, **second.searches},
    )


def to_ids(token_ids: mx.array) -> list[int]:
    """Read int32 ``[B]`` token ids; waits for the device."""
    return cast("list[int]", token_ids.tolist())

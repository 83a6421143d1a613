"""A decode step of a batch: launch the forward pass, observe the tokens, choose the next ones.

Everything of a batch is aligned by row, and moves by one select and one join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from vlmkit.engine.rows import RowState, Step, Taken, apply_decisions, end_row, observe_token
from vlmkit.engine.samplers import (
    Sections,
    draw_tokens,
    join_sections,
    run_section,
    select_sections,
    set_hosts,
    slices,
    update_sections,
)
from vlmkit.engine.searching import Move, Path, Searching, advance_search
from vlmkit.engine.streams import (
    Method,
    StreamLogits,
    Streams,
    combine,
    join_streams,
    select_streams,
    step_streams,
)
from vlmkit.numerics import entropy, log_softmax
from vlmkit.stages import Decision, StepTrace


class RowLogits(NamedTuple):
    """What each row's next token is drawn from."""

    own: mx.array  # float32 [B, V], of the row's own stream
    combined: mx.array  # float32 [B, V], after contrast; the same object where there is none
    hidden: mx.array  # [B, hidden], of the row's own stream
    doubts: mx.array | None = None  # float32 [B, 2]: entropy and confidence of ``own``, where read


class Drawn(NamedTuple):
    """The token that each row in flight is about to take, and how it came about."""

    sampled: mx.array  # int32 [B], as drawn
    tokens: mx.array  # int32 [B], after forcing
    logits: RowLogits  # that ``sampled`` was drawn from
    traces: tuple[tuple[mx.array, ...], ...]  # per row: logits [V] after each stage, if traced
    failures: tuple[Exception | None, ...]  # per row: why nothing could be drawn


class Flight(NamedTuple):
    """Rows after a forward pass, before their next tokens are chosen."""

    paths: tuple[Path, ...]
    streams: Streams
    sections: Sections
    logits: StreamLogits
    searches: Mapping[int, Searching]  # by the spec's number


class Batch(NamedTuple):
    """Rows and the tokens they take: what the next forward pass starts from."""

    paths: tuple[Path, ...]
    streams: Streams
    sections: Sections
    drawn: Drawn
    searches: Mapping[int, Searching]

    @property
    def num_requests(self) -> int:
        """A search has several rows."""
        return len({path.row.row for path in self.paths})


def launch(method: Method, batch: Batch) -> Flight:
    """Build the graph of the forward pass over the batch's tokens."""
    streams, logits = step_streams(method, batch.streams, batch.drawn.tokens)
    return Flight(batch.paths, streams, batch.sections, logits, batch.searches)


def observe(paths: Sequence[Path], drawn: Drawn) -> tuple[tuple[Path, ...], list[Step]]:
    """Read the tokens, which waits for the device, and say what each means for its row."""
    if all(path.row.spec.search is not None for path in paths):
        return tuple(paths), []
    sampled, tokens = to_ids(drawn.sampled), to_ids(drawn.tokens)
    doubts = _to_floats(drawn.logits.doubts)
    after, steps = [], []
    for place, path in enumerate(paths):
        row = path.row
        if row.spec.search is None:
            taken = Taken(
                sampled_id=sampled[place],
                token_id=tokens[place],
                logits=drawn.logits.own[place],
                trace=_trace(row, place, drawn, sampled[place]),
                failure=drawn.failures[place],
            )
            if doubts is not None:
                taken = taken._replace(entropy=doubts[place][0], confidence=doubts[place][1])
            row, step = observe_token(row, taken)
            steps.append(step)
        after.append(path._replace(row=row))
    return tuple(after), steps


def _trace(row: RowState, place: int, drawn: Drawn, sampled_id: int) -> StepTrace | None:
    if not drawn.traces[place] and not row.spec.trace:
        return None
    names = ["model", *(["contrast"] if row.spec.others is not None else [])]
    logits = (drawn.logits.own[place], drawn.logits.combined[place])[: len(names)]
    names += [stage.name for stage in row.spec.sampler.chain.stages]
    return StepTrace(tuple(names), (*logits, *drawn.traces[place]), sampled_id)


def choose(method: Method, flight: Flight) -> tuple[Batch | None, list[Step]]:
    """Choose the rows' next tokens: None where no row goes on, and the steps that are certain."""
    rows = [path.row for path in flight.paths]
    sections = set_hosts(flight.sections, [row.hosts for row in rows])
    combined = combine(method, sections, flight.logits, [row.num_tokens for row in rows])
    own = flight.logits.own
    reading = frozenset[str]().union(*(row.spec.stopping.reads for row in rows))
    doubts = _doubts(own) if reading & {"entropy", "confidence"} else None
    logits = RowLogits(own, combined, flight.logits.hidden, doubts)
    moves, sections, searches, steps = _moves(flight, sections, logits)
    if not moves:
        return None, steps
    streams, sources = flight.streams, [move.source for move in moves]
    del flight
    if sources != list(range(len(rows))):
        streams = select_streams(method, streams, sources)
        sections, logits = select_sections(sections, sources), select_logits(logits, sources)
    batch = _draw(tuple(moves), streams, sections, logits)
    return batch._replace(searches=searches), steps


def _draw(
    moves: tuple[Move, ...], streams: Streams, sections: Sections, logits: RowLogits
) -> Batch:
    """Draw the tokens of the rows that no search gave one."""
    rows = [move.path.row for move in moves]
    draws = draw_tokens(
        sections,
        logits.combined,
        [row.spec.sampler for row in rows],
        [row.num_tokens for row in rows],
        traced=[row.spec.trace for row in rows],
        given=[move.token_id for move in moves],
    )
    given = Decision()  # a search has seen to its rows' decisions
    decisions = [given if row.spec.search is not None else row.decision for row in rows]
    tokens = apply_decisions(draws.sampled, decisions)
    mx.async_eval(tokens)  # type: ignore[no-untyped-call]
    drawn = Drawn(draws.sampled, tokens, logits, draws.traces, draws.failures)
    sections = update_sections(draws.sections, tokens)
    return Batch(tuple(move.path for move in moves), streams, sections, drawn, {})


def _moves(
    flight: Flight, sections: Sections, logits: RowLogits
) -> tuple[list[Move], Sections, dict[int, Searching], list[Step]]:
    """Which rows go on, and with what; finished rows are left out."""
    paths = flight.paths
    moves: list[Move] = []
    after, steps = [], []
    searches: dict[int, Searching] = {}
    for section, place in zip(sections, slices(sections), strict=True):
        rows = [path.row for path in paths[place]]
        search = rows[0].spec.search
        if search is None:
            after.append(section)
            moves += [
                Move(source, paths[source], None)
                for source, row in enumerate(rows, start=place.start)
                if row.decision.finish is None
            ]
            continue
        entering = logits.combined[place]
        section, chained = run_section(
            section,
            log_softmax(entering) if search.from_logprobs else entering,
            [row.spec.sampler for row in rows],
            [row.num_tokens for row in rows],
        )
        after.append(section)
        for request in dict.fromkeys(row.row for row in rows):
            own = [place.start + index for index, row in enumerate(rows) if row.row == request]
            try:
                searching, own_moves, own_steps = advance_search(
                    flight.searches[request],
                    [paths[source] for source in own],
                    own,
                    logits,
                    chained[own[0] - place.start : own[-1] + 1 - place.start],
                )
            except Exception as error:  # a criterion of a third party raises what it likes
                own_steps, own_moves = [end_row(paths[own[0]].row, error)], []
            else:
                searches[request] = searching
            moves += own_moves
            steps += own_steps
    return moves, tuple(after), searches, steps


def _doubts(logits: mx.array) -> mx.array:
    """Entropy in nats and largest probability of each row, float32 ``[B, 2]``."""
    logprobs = log_softmax(logits)
    largest = mx.exp(mx.max(logprobs, axis=-1, keepdims=True))
    return mx.concatenate([entropy(logprobs), largest], axis=-1)


def _to_floats(doubts: mx.array | None) -> list[tuple[float, float]] | None:
    return (
        None if doubts is None else [(a, b) for a, b in cast("list[list[float]]", doubts.tolist())]
    )


def select_logits(logits: RowLogits, rows: Sequence[int]) -> RowLogits:
    """Keep these rows, in this order."""
    index = mx.array(list(rows))
    own, doubts = logits.own[index], logits.doubts
    combined = own if logits.combined is logits.own else logits.combined[index]
    doubts = None if doubts is None else doubts[index]
    return RowLogits(own, combined, logits.hidden[index], doubts)


def join_batches(method: Method, first: Batch, second: Batch) -> Batch:
    """Put the rows of two batches into one, those of equal chains together."""
    sections, order = join_sections(first.sections, second.sections)
    one, two = first.drawn, second.drawn
    joined = Batch(
        paths=first.paths + second.paths,
        streams=join_streams(first.streams, second.streams),
        sections=sections,
        drawn=Drawn(
            sampled=mx.concatenate([one.sampled, two.sampled]),
            tokens=mx.concatenate([one.tokens, two.tokens]),
            logits=_join_logits(one.logits, two.logits),
            traces=one.traces + two.traces,
            failures=one.failures + two.failures,
        ),
        searches={**first.searches, **second.searches},
    )
    if order == list(range(len(order))):
        return joined
    index, drawn = mx.array(order), joined.drawn
    return joined._replace(
        paths=tuple(joined.paths[row] for row in order),
        streams=select_streams(method, joined.streams, order),
        drawn=Drawn(
            sampled=drawn.sampled[index],
            tokens=drawn.tokens[index],
            logits=select_logits(drawn.logits, order),
            traces=tuple(drawn.traces[row] for row in order),
            failures=tuple(drawn.failures[row] for row in order),
        ),
    )


def _join_logits(first: RowLogits, second: RowLogits) -> RowLogits:
    own = mx.concatenate([first.own, second.own])
    plain = first.own is first.combined and second.own is second.combined
    doubts = None
    if first.doubts is not None or second.doubts is not None:
        parts = [_doubts(one.own) if one.doubts is None else one.doubts for one in (first, second)]
        doubts = mx.concatenate(parts)
    return RowLogits(
        own,
        own if plain else mx.concatenate([first.combined, second.combined]),
        mx.concatenate([first.hidden, second.hidden]),
        doubts,
    )


def to_ids(token_ids: mx.array) -> list[int]:
    """Read int32 ``[B]`` token ids; waits for the device."""
    return cast("list[int]", token_ids.tolist())

"""A decode step of a batch: launch the forward pass, observe the tokens, choose the next ones.

Everything of a batch is aligned by row, and moves by one select and one join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import mlx.core as mx

from vlmkit.contracts.stages import Decision, StepTrace
from vlmkit.engine.rows import (
    RowState,
    Step,
    Taken,
    apply_decisions,
    end_row,
    fail_row,
    observe_token,
)
from vlmkit.engine.searching import Move, Searching, advance_search
from vlmkit.engine.streams import (
    RowLogits,
    StreamLogits,
    Streams,
    combine,
    join_logits,
    join_streams,
    read_doubts,
    select_logits,
    select_streams,
    step_streams,
)
from vlmkit.numeric.probabilities import log_softmax
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import (
    Failures,
    Section,
    Sections,
    draw_tokens,
    join_sections,
    run_section,
    select_sections,
    set_hosts,
    slices,
    update_sections,
)

_DOUBTS = frozenset({"entropy", "confidence"})


class Drawn(NamedTuple):
    """The token that each row in flight is about to take, and how it came about."""

    sampled: mx.array  # int32 [B], as drawn
    tokens: mx.array  # int32 [B], after forcing
    logits: RowLogits  # that ``sampled`` was drawn from
    traces: tuple[tuple[mx.array, ...], ...]  # per row: logits [V] after each stage, if traced
    failures: Failures  # why rows have nothing drawn


class Flight(NamedTuple):
    """Rows after a forward pass, before their next tokens are chosen."""

    rows: tuple[RowState, ...]
    streams: Streams
    sections: Sections
    logits: StreamLogits
    searches: Mapping[int, Searching]  # by the spec's number


class Batch(NamedTuple):
    """Rows and the tokens they take: what the next forward pass starts from."""

    rows: tuple[RowState, ...]
    streams: Streams
    sections: Sections
    drawn: Drawn
    searches: Mapping[int, Searching]

    @property
    def num_requests(self) -> int:
        """A search has several rows."""
        return len({row.number for row in self.rows})


def launch(method: Method, batch: Batch) -> Flight:
    """Build the graph of the forward pass over the batch's tokens."""
    streams, logits = step_streams(method, batch.streams, batch.drawn.tokens)
    return Flight(batch.rows, streams, batch.sections, logits, batch.searches)


def observe(rows: Sequence[RowState], drawn: Drawn) -> tuple[tuple[RowState, ...], list[Step]]:
    """Read the tokens, which waits for the device, and say what each means for its row."""
    searched = {
        place: failure
        for place, failure in drawn.failures.items()
        if rows[place].search is not None
    }
    rows, steps = fail_rows(rows, searched)
    if all(row.search is not None for row in rows):
        return rows, steps
    sampled, tokens = (cast("list[int]", ids.tolist()) for ids in (drawn.sampled, drawn.tokens))
    doubts: Any = None if drawn.logits.doubts is None else drawn.logits.doubts.tolist()
    after = []
    for place, row in enumerate(rows):
        if row.search is None:
            taken = Taken(
                sampled_id=sampled[place],
                token_id=tokens[place],
                logits=drawn.logits.own[place],
                trace=_trace(row, place, drawn, sampled[place]),
                failure=drawn.failures.get(place),
            )
            if doubts is not None:
                taken = taken._replace(entropy=doubts[place][0], confidence=doubts[place][1])
            row, step = observe_token(row, taken)
            steps.append(step)
        after.append(row)
    return tuple(after), steps


def fail_rows(
    rows: Sequence[RowState], failures: Mapping[int, Exception]
) -> tuple[tuple[RowState, ...], list[Step]]:
    """Let the rows of these places end, with their last steps; a search gives its own later."""
    after = list(rows)
    for place, error in failures.items():
        after[place] = fail_row(rows[place], error)
    ended = [after[place] for place in failures]
    return tuple(after), [end_row(row) for row in ended if row.search is None]


def _trace(row: RowState, place: int, drawn: Drawn, sampled_id: int) -> StepTrace | None:
    if not row.spec.trace:
        return None
    names = ["model", *(["contrast"] if row.spec.others is not None else [])]
    logits = (drawn.logits.own[place], drawn.logits.combined[place])[: len(names)]
    names += [stage.name for stage in row.spec.sampler.chain.stages]
    return StepTrace(tuple(names), (*logits, *drawn.traces[place]), sampled_id)


def choose(method: Method, flight: Flight) -> tuple[Batch | None, list[Step]]:
    """Choose the rows' next tokens: None where no row goes on, and the steps that are certain."""
    hosts = [row.hosts if row.goes_on else None for row in flight.rows]
    sections, failures = set_hosts(flight.sections, hosts)
    rows, failed = fail_rows(flight.rows, failures)
    combined = combine(method, sections, flight.logits, [row.num_tokens for row in rows])
    own = flight.logits.own
    reads_doubts = any(row.spec.stopping.reads & _DOUBTS for row in rows)
    doubts = read_doubts(own) if reads_doubts else None
    logits = RowLogits(own, combined, flight.logits.hidden, doubts)
    moves, sections, searches, steps = _moves(flight._replace(rows=rows), sections, logits)
    steps = failed + steps
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
    rows = tuple(move.row for move in moves)
    draws = draw_tokens(
        sections,
        logits.combined,
        [row.spec.sampler for row in rows],
        [row.num_tokens for row in rows],
        traced=[row.spec.trace for row in rows],
        given=[move.token_id for move in moves],
    )
    given = Decision()  # a search has seen to its rows' decisions
    decisions = [given if row.search is not None else row.decision for row in rows]
    tokens = apply_decisions(draws.sampled, decisions)
    mx.async_eval(tokens)  # type: ignore[no-untyped-call]
    sections, failures = update_sections(draws.sections, tokens)
    drawn = Drawn(draws.sampled, tokens, logits, draws.traces, {**draws.failures, **failures})
    return Batch(rows, streams, sections, drawn, {})


def _moves(
    flight: Flight, sections: Sections, logits: RowLogits
) -> tuple[list[Move], Sections, dict[int, Searching], list[Step]]:
    """Which rows go on, and with what; finished rows are left out."""
    rows = flight.rows
    moves: list[Move] = []
    after, steps = [], []
    searches: dict[int, Searching] = {}
    for section, place in zip(sections, slices(sections), strict=True):
        if rows[place.start].search is None:
            after.append(section)
            moves += [
                Move(source, rows[source], None)
                for source in range(place.start, place.stop)
                if rows[source].goes_on
            ]
            continue
        section, own_moves, found, own_steps = _search_section(section, place, flight, logits)
        after.append(section)
        moves += own_moves
        searches |= found
        steps += own_steps
    return moves, tuple(after), searches, steps


def _search_section(
    section: Section, place: slice, flight: Flight, logits: RowLogits
) -> tuple[Section, list[Move], dict[int, Searching], list[Step]]:
    """The same of the searches that share a section."""
    rows = flight.rows[place]
    search = rows[0].search
    assert search is not None
    chained = logits.combined[place]
    failure: Exception | None = None
    try:
        section, chained = run_section(
            section,
            log_softmax(chained) if search.from_logprobs else chained,
            [row.spec.sampler for row in rows],
            [row.num_tokens for row in rows],
        )
    except Exception as error:  # a stage of a third party raises what it likes
        failure = error
    moves, steps = [], []
    searches: dict[int, Searching] = {}
    for request in dict.fromkeys(row.number for row in rows):
        own = [index for index, row in enumerate(rows) if row.number == request]
        sources = [place.start + index for index in own]
        paths = [rows[index] for index in own]
        try:
            _raise_failures(paths, failure)
            searches[request], own_moves, own_steps = advance_search(
                flight.searches[request], paths, sources, logits, chained[own[0] : own[-1] + 1]
            )
        except Exception as error:  # a criterion of a third party raises what it likes
            own_moves, own_steps = [], [end_row(fail_row(paths[0], error))]
        moves += own_moves
        steps += own_steps
    return section, moves, searches, steps


def _raise_failures(rows: Sequence[RowState], failure: Exception | None) -> None:
    """Raise what the rows of a search cannot go on for: their chain's failure, or their own."""
    own = [row.decision.finish.error for row in rows if row.decision.finish is not None]
    for error in (failure, *own):
        if error is not None:
            raise error


def join_batches(method: Method, first: Batch, second: Batch) -> Batch:
    """Put the rows of two batches into one, those of equal chains together."""
    sections, order = join_sections(first.sections, second.sections)
    one, two = first.drawn, second.drawn
    joined = Batch(
        rows=first.rows + second.rows,
        streams=join_streams(first.streams, second.streams),
        sections=sections,
        drawn=Drawn(
            sampled=mx.concatenate([one.sampled, two.sampled]),
            tokens=mx.concatenate([one.tokens, two.tokens]),
            logits=join_logits(one.logits, two.logits),
            traces=one.traces + two.traces,
            failures={
                **one.failures,
                **{row + len(first.rows): error for row, error in two.failures.items()},
            },
        ),
        searches={**first.searches, **second.searches},
    )
    if order == list(range(len(order))):
        return joined
    index, drawn = mx.array(order), joined.drawn
    return joined._replace(
        rows=tuple(joined.rows[row] for row in order),
        streams=select_streams(method, joined.streams, order),
        drawn=Drawn(
            sampled=drawn.sampled[index],
            tokens=drawn.tokens[index],
            logits=select_logits(drawn.logits, order),
            traces=tuple(drawn.traces[row] for row in order),
            failures={
                place: drawn.failures[row]
                for place, row in enumerate(order)
                if row in drawn.failures
            },
        ),
    )

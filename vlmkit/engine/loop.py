"""The decode loop: the only one in the project.

Every step launches the next forward pass before the host reads the current tokens, so Python and
the device work at the same time. Rows enter after their own prefill and leave when they finish
(continuous batching; Yu et al., "Orca", OSDI 2022). A row's tokens do not depend on its neighbours.

A step: launch the forward pass over the tokens taken; read those tokens, which may end rows; choose
the next ones from the pass's logits, by drawing or by a search, and move the rows accordingly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.contracts.inputs import Inputs, num_equal
from vlmkit.engine.batch import (
    Batch,
    combine,
    join,
    read_logits,
    select,
    step_batch,
    with_failures,
)
from vlmkit.engine.rows import (
    RowSpec,
    RowState,
    Step,
    end_row,
    fail_row,
    may_continue,
    start_row,
)
from vlmkit.engine.searching import start_search
from vlmkit.engine.step import draw, move, observe
from vlmkit.engine.timing import prompt_timings
from vlmkit.errors import VlmkitError
from vlmkit.prompts import (
    Prefilled,
    PrefillOptions,
    PromptStore,
    Started,
    prefill_prompts,
    select_hidden,
    select_state,
)
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import init_sections, together


class LoopOptions(NamedTuple):
    """What all rows of one loop share."""

    method: Method
    prefill: PrefillOptions
    batch_size: int  # requests in flight at most
    store: PromptStore  # prompts of earlier rows and calls
    keep_all: bool = False  # every prompt goes into the store, and every row at its end
    group_by_shape: bool = True  # prefill only rows with media of equal shapes together


def decode_rows(specs: Iterable[RowSpec | Step], options: LoopOptions) -> Iterator[Step]:
    """Generate every row to its end and yield each token as soon as it is certain.

    Args:
        specs: the rows, in order, and the only steps of those that could not be prepared; drawn
            from only as slots become free.
        options: what all rows share.

    Yields:
        One ``Step`` per token; tokens of different rows interleave. The last step of a row has
        ``finish`` set; where the row could not go on (NaN logits, nothing left to draw, a
        criterion that raises), its reason is "error".
    """
    waiting = deque[RowState]()
    source = iter(specs)
    batch: Batch | None = None
    method = options.method
    while True:
        arrived = False
        free = options.batch_size - (batch.num_requests if batch else 0)
        for arrival in _arrivals(source, waiting, free, options):
            arrived = True
            if isinstance(arrival, Step):
                yield arrival
            else:
                batch = arrival if batch is None else join(method, batch, arrival)
            del arrival  # nothing may hold an old state when a pass is computed: it would be copied
        if batch is None:
            if not arrived:
                return
            continue  # all that came have ended, and left their places to others
        batch, given, steps = move(method, combine(method, batch))
        yield from steps
        if batch is None:
            continue
        batch, drawn = draw(batch, given)
        if any(map(may_continue, batch.rows)):
            batch = step_batch(method, batch, drawn.tokens)
            mx.async_eval(batch.logits)  # type: ignore[no-untyped-call]
        rows, steps = observe(batch.rows, drawn)
        del drawn
        yield from steps
        batch = batch._replace(rows=rows)
        if options.keep_all:
            _keep_finished(batch, options)
        stays = [place for place, row in enumerate(rows) if row.search is not None or row.goes_on]
        batch = select(method, batch, stays)


def _arrivals(
    source: Iterator[RowSpec | Step],
    waiting: deque[RowState],
    free: int,
    options: LoopOptions,
) -> Iterator[Step | Batch]:
    """Yield rows after their prefill, and final steps of rows that ended before it."""
    while free > 0:
        while len(waiting) < free and (spec := next(source, None)) is not None:
            if isinstance(spec, Step):
                yield spec
                continue
            row = start_row(spec)
            if row.goes_on:
                waiting.append(row)
            else:
                yield end_row(row)
        if not waiting:
            return
        group = _take_group(waiting, free, options)
        free -= len(group)
        yield from _start_apart(group, options)


def _take_group(waiting: deque[RowState], free: int, options: LoopOptions) -> list[RowState]:
    """Take rows off the queue that are to be prefilled together."""
    group = [waiting.popleft()]
    first = group[0].spec
    # Equal prompts are computed once, and so is what all of a group begin with.
    lengths, shared = {_content(first): len(first.inputs.token_ids)}, len(first.inputs.token_ids)
    while waiting and len(group) < free and not _is_alone(first):
        spec = waiting[0].spec
        joined = {**lengths, _content(spec): len(spec.inputs.token_ids)}
        common = min(shared, num_equal(first.inputs, spec.inputs))
        tokens = (max(joined.values()) * options.method.num_own - common) * len(joined)
        if len(joined) > len(lengths) and tokens > options.prefill.step_size:
            break
        if _is_alone(spec) or (options.group_by_shape and _shapes(spec) != _shapes(first)):
            break
        lengths, shared = joined, common
        group.append(waiting.popleft())
    return group


def _content(spec: RowSpec) -> bytes:
    return spec.inputs.content_ids.tobytes()


def _shapes(spec: RowSpec) -> list[tuple[int, ...]]:
    return [medium.shape for medium in spec.inputs.media]


def _is_alone(spec: RowSpec) -> bool:
    """Whether a row's prefill is its own: its search needs the states of its whole prompt."""
    return spec.search is not None and spec.search.needs_hidden


def _start_apart(rows: Sequence[RowState], options: LoopOptions) -> Iterator[Step | Batch]:
    """Start rows together; where that fails each alone, so that a row that cannot ends alone."""
    try:
        started = _start_batch(rows, options)
    except Exception as error:  # a prompt or a model of a third party raises what it likes
        if len(rows) == 1:
            yield end_row(fail_row(rows[0], error))
            return
    else:
        yield started
        return
    for row in rows:
        yield from _start_apart([row], options)


def _start_batch(rows: Sequence[RowState], options: LoopOptions) -> Batch:
    """Prefill rows together."""
    clock = rows[0].spec.clock
    started = clock()
    order = together([row.spec.sampler.key for row in rows])
    rows = [rows[place] for place in order]
    prefilled = _prefill([row.spec for row in rows], options)
    hidden = [part.hidden for part in prefilled]
    logits = read_logits(options.method, hidden)
    mx.eval(logits)
    now = clock()
    counts = [count for _, count in options.method.parts]
    timings = prompt_timings([row.spec.inputs for row in rows], prefilled, counts, now - started)
    sections, failures = init_sections(
        [row.spec.sampler for row in rows],
        [row.spec.inputs.token_ids for row in rows],
        logits.own.shape[-1],
    )
    timed = tuple(
        start_search(row, hidden[0].prompt)._replace(
            timing=timing, started_s=started, first_token_s=now
        )
        for row, timing in zip(rows, timings, strict=True)
    )
    streams = tuple(part.state for part in prefilled)
    return Batch(with_failures(timed, failures), streams, sections, logits)


def _prefill(specs: Sequence[RowSpec], options: LoopOptions) -> list[Prefilled]:
    """Run the prompts of all streams by each model, and keep those that later rows need."""
    method, prompts = options.method, list[Inputs]()
    for spec in specs:
        prompts += (spec.inputs, *(spec.others or ()))[: method.num_own]
    own = prefill_prompts(
        method.model,
        prompts,
        options.prefill,
        known=options.store,
        taps=method.taps,
        keep_prompt=_is_alone(specs[0]),
    )
    _keep_started(specs, own, options)
    if method.amateur is None:
        return [own]
    prompts = [prompt for spec in specs for prompt in spec.others or ()]
    try:
        return [own, prefill_prompts(method.amateur, prompts, options.prefill)]
    except VlmkitError as error:
        raise VlmkitError(f"contrast.amateur: {error}", path=("contrast", "amateur")) from error


def _keep_started(specs: Sequence[RowSpec], own: Prefilled, options: LoopOptions) -> None:
    """Put the prompts into the store that later rows begin with; take out those no more needed."""
    kept = set()
    for place, spec in enumerate(specs):
        content = _content(spec)
        if not (options.keep_all or spec.reused):
            options.store.drop(spec.inputs)
        elif content not in kept:
            kept.add(content)
            row = place * options.method.num_own
            options.store.put(_row_of(spec, own, row, options.method.taps))


def _row_of(spec: RowSpec, own: Prefilled, row: int, taps: tuple[int, ...]) -> Started:
    state = select_state(own.state, [row])
    hidden = select_hidden(own.hidden._replace(prompt=None), [row])
    mx.eval(state, hidden)  # else it holds on to the states of all rows
    return Started(spec.inputs, state, hidden, taps)


def _keep_finished(batch: Batch, options: LoopOptions) -> None:
    """Put rows that have just ended into the store: a next turn goes on from their answers."""
    for place, row in enumerate(batch.rows):
        finish = row.decision.finish
        if finish is None or finish.error is not None or row.search is not None:
            continue
        state = select_state(batch.streams[0], [place * options.method.num_own])
        mx.eval(state)
        inputs = row.spec.inputs.followed_by(row.token_ids)
        options.store.put(Started(inputs, state, None))

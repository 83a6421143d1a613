"""The decode loop: the only one in the project.

Every step launches the next forward pass before the host reads the current tokens, so Python and
the device work at the same time. Rows enter after their own prefill and leave when they finish
(continuous batching; Yu et al., "Orca", OSDI 2022). A row's tokens do not depend on its neighbours.

A step: launch the forward pass over the tokens taken; read those tokens, which may end rows; choose
the next ones from the pass's logits, by drawing or by a search, and move the rows accordingly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.cache import finishes
from vlmkit.contracts.inputs import Inputs, num_equal
from vlmkit.contracts.interface import DecodeState, Hidden
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
from vlmkit.engine.searching import advance_searches, start_search
from vlmkit.engine.step import draw, observe
from vlmkit.engine.timing import prompt_timings
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PixelCache
from vlmkit.prompts import (
    Prefilled,
    PrefillOptions,
    PromptCache,
    PromptStore,
    Started,
    prefill_prompts,
    select_hidden,
    select_state,
)
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import init_sections, together


class RunOptions(NamedTuple):
    """How requests run beside each other."""

    batch_size: int = 1  # requests in flight at most; a search counts as one
    group_by_shape: bool = True  # prefill only rows with media of equal shapes together
    trace: bool = False  # keep the logits after each stage in every step
    prompt_cache: PromptCache | None = None  # None: prompts are shared within this run alone
    keep_prompts: bool = True  # prompts and answers of this run go into ``prompt_cache``
    clock: Callable[[], float] = time.perf_counter  # seconds

    @property
    def pixels(self) -> PixelCache | None:
        """Images that were processed before."""
        return None if self.prompt_cache is None else self.prompt_cache.pixels


class LoopOptions(NamedTuple):
    """What all rows of one loop share."""

    method: Method
    prefill: PrefillOptions
    store: PromptStore  # prompts of earlier rows and calls
    run: RunOptions  # with ``keep_prompts``: every prompt goes into the store, and every row's end


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
    waiting, source = deque[RowState](), iter(specs)
    batch: Batch | None = None
    method = options.method
    while True:
        free = options.run.batch_size - (batch.num_requests if batch else 0)
        for arrival in _arrivals(source, waiting, free, options):
            if isinstance(arrival, Step):
                yield arrival
            else:
                batch = arrival if batch is None else join(method, batch, arrival)
            del arrival  # nothing may hold an old state when a pass is computed: it would be copied
        if batch is None:
            return
        batch, given, steps = advance_searches(method, combine(method, batch))
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
        if options.run.keep_prompts:
            _keep_finished(batch, options)
        stays = [place for place, row in enumerate(rows) if row.goes_on or row.search is not None]
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
        for one in _start_apart(_take_group(waiting, free, options), options):
            free -= one.num_requests if isinstance(one, Batch) else 0
            yield one


def _take_group(waiting: deque[RowState], free: int, options: LoopOptions) -> list[RowState]:
    """Take rows off the queue that are to be prefilled together."""
    group = [waiting.popleft()]
    first = group[0].spec
    # Equal prompts are computed once, and so is what all of a group begin with.
    shared = len(first.inputs.token_ids)
    lengths = {first.inputs.content: shared}
    while waiting and len(group) < free and not _is_alone(first):
        spec = waiting[0].spec
        joined = {**lengths, spec.inputs.content: len(spec.inputs.token_ids)}
        common = min(shared, num_equal(first.inputs, spec.inputs))
        tokens = (max(joined.values()) * options.method.num_own - common) * len(joined)
        if len(joined) > len(lengths) and tokens > options.prefill.step_size:
            break
        if _is_alone(spec) or (options.run.group_by_shape and _shapes(spec) != _shapes(first)):
            break
        lengths, shared = joined, common
        group.append(waiting.popleft())
    return group


def _shapes(spec: RowSpec) -> list[tuple[int, ...]]:
    return [medium.shape for medium in spec.inputs.media]


def _is_alone(spec: RowSpec) -> bool:
    """Whether a row's prefill is its own: its search needs the states of its whole prompt."""
    return spec.search is not None and spec.search.needs_hidden


def _start_apart(rows: Sequence[RowState], options: LoopOptions) -> Iterator[Step | Batch]:
    """Start rows together; where that fails each alone, so that a row that cannot ends alone."""
    try:
        yield _start_batch(rows, options)
        return
    except Exception as error:  # a prompt or a model of a third party raises what it likes
        if len(rows) == 1:
            yield end_row(fail_row(rows[0], error))
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
    prompts = [row.spec.inputs for row in rows]
    timings = prompt_timings(options.method, prompts, prefilled, now - started)
    sections, failures = init_sections(
        [row.spec.sampler for row in rows],
        [inputs.token_ids for inputs in prompts],
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
        return [own, prefill_prompts(method.amateur.model, prompts, options.prefill)]
    except VlmkitError as error:
        raise VlmkitError(f"contrast.amateur: {error}", path=("contrast", "amateur")) from error


def _keep_started(specs: Sequence[RowSpec], own: Prefilled, options: LoopOptions) -> None:
    """Put the prompts into the store that later rows begin with; take out those no more needed."""
    kept = set()
    for place, spec in enumerate(specs):
        content = spec.inputs.content
        if not (options.run.keep_prompts or spec.reused):
            options.store.drop(spec.inputs)
        elif content not in kept:
            kept.add(content)
            _keep(spec.inputs, own.state, own.hidden._replace(prompt=None), place, options)


def _keep_finished(batch: Batch, options: LoopOptions) -> None:
    """Put rows that have just ended into the store: a next turn goes on from their answers."""
    if finishes(batch.streams[0].cache):
        return  # nothing can go on from these
    for place, row in enumerate(batch.rows):
        finish = row.decision.finish
        if finish is not None and finish.error is None and row.search is None:
            inputs = row.spec.inputs.followed_by(row.token_ids)
            if _stands_alike(inputs, batch.streams[0], place, options):
                _keep(inputs, batch.streams[0], None, place, options)


def _stands_alike(inputs: Inputs, state: DecodeState, place: int, options: LoopOptions) -> bool:
    """Whether a row's answer has the positions that it has as part of a prompt.

    Behind a video it may not: an answer goes on from the video's last time, and a text from its
    longer side.
    """
    if not inputs.media:
        return True
    method, length = options.method, len(inputs.token_ids)
    row = place * method.num_own
    try:
        embedded = method.model.embed([inputs], {}, [length - 1])
    except VlmkitError:  # a placeholder was drawn, which no prompt has by itself
        return False
    missing = length - state.cache.lengths[row]
    return embedded.next_positions[0] == state.next_positions[row] + missing


def _keep(
    inputs: Inputs, state: DecodeState, hidden: Hidden | None, place: int, options: LoopOptions
) -> None:
    """Put one row of a batch into the store."""
    method, row = options.method, [place * options.method.num_own]
    state, hidden = select_state(state, row), hidden and select_hidden(hidden, row)
    mx.eval(state, hidden)  # else it holds on to the states of all rows
    options.store.put(Started(inputs, state, hidden, method.taps if hidden else ()))

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
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.engine.lanes import LaneOptions, start_lanes
from vlmkit.engine.rows import (
    PromptTiming,
    RowSpec,
    RowState,
    Step,
    may_continue,
    start_row,
    unstarted_step,
)
from vlmkit.engine.sampler_groups import init_groups
from vlmkit.engine.searching import Path, start_search
from vlmkit.engine.stepping import Batch, Flight, choose, join_batches, launch, observe
from vlmkit.interface import Model


class LoopOptions(NamedTuple):
    """What all rows of one loop share."""

    batch_size: int  # requests in flight at most
    lanes: LaneOptions
    group_by_shape: bool = True  # prefill only rows with equal image grids together


def decode_rows(model: Model, specs: Iterable[RowSpec], options: LoopOptions) -> Iterator[Step]:
    """Generate every row to its end and yield each token as soon as it is certain.

    Args:
        model: the model's functions.
        specs: the rows, in order; drawn from only as slots become free.
        options: what all rows share.

    Yields:
        One ``Step`` per token; tokens of different rows interleave. The last step of a row has
        ``finish`` set.

    Raises:
        VlmkitError: the logits of a row hold NaN, or its chain leaves no token to draw.
    """
    waiting = deque[RowState]()
    source = enumerate(specs)
    batch: Batch | None = None
    while True:
        free = options.batch_size - (batch.num_requests if batch else 0)
        arrived = False
        for arrival in _take_arrivals(source, waiting, free, options):
            arrived = True
            if isinstance(arrival, Step):
                yield arrival
                continue
            joiner, steps = _start_batch(model, arrival, options)
            yield from steps
            if joiner is not None:
                batch = joiner if batch is None else join_batches(batch, joiner)
        if batch is None:
            if not arrived:
                return
            continue  # a search can end with its first token, and leave its place to another
        paths, drawn = batch.paths, batch.drawn
        # Nothing may hold the old state when the pass is launched: the caches would be copied.
        flight = launch(batch) if any(may_continue(path.row) for path in paths) else None
        batch = None
        if flight is not None:
            mx.async_eval(flight.logits.combined)  # type: ignore[no-untyped-call]
        rows, steps = observe(paths, drawn)
        del drawn
        yield from steps
        if flight is not None:
            batch, steps = choose(flight._replace(paths=rows))
            flight = None
            yield from steps


def _take_arrivals(
    source: Iterator[tuple[int, RowSpec]],
    waiting: deque[RowState],
    free: int,
    options: LoopOptions,
) -> Iterator[Step | list[RowState]]:
    """Yield groups of rows to prefill together, and final steps of rows that ended at once."""
    while free > 0:
        while len(waiting) < free and (entry := next(source, None)) is not None:
            row = start_row(*entry)
            if row.decision.finish is None:
                waiting.append(row)
            else:
                yield unstarted_step(row)
        if not waiting:
            return
        group = [waiting.popleft()]
        if _is_alone(group[0]):
            free -= 1
            yield group
            continue
        longest = len(group[0].spec.inputs.token_ids)
        while waiting and len(group) < free:
            inputs = waiting[0].spec.inputs
            longest = max(longest, len(inputs.token_ids))
            if longest * (len(group) + 1) > options.lanes.prefill_step_size:
                break
            if _is_alone(waiting[0]):
                break
            same = inputs.image_grids == group[0].spec.inputs.image_grids
            if options.group_by_shape and not same:
                break
            group.append(waiting.popleft())
        free -= len(group)
        yield group


def _is_alone(row: RowState) -> bool:
    """Whether a row's prefill is its own: it has several streams, or a search needs its states."""
    contrast, search = row.spec.contrast, row.spec.search
    several = contrast is not None and contrast.model is None and bool(contrast.inputs)
    return several or (search is not None and search.needs_hidden)


def _start_batch(
    model: Model, rows: Sequence[RowState], options: LoopOptions
) -> tuple[Batch | None, list[Step]]:
    """Prefill rows together and choose their first tokens; equal prompts are computed once."""
    started = time.perf_counter()
    search = rows[0].spec.search
    lanes, logits, places = start_lanes(
        model,
        [row.spec.inputs for row in rows],
        [row.spec.contrast for row in rows],
        options.lanes,
        keep_prompt=search is not None and search.needs_hidden,
    )
    mx.eval(logits.combined)
    now = time.perf_counter()
    prompts = [row.spec.inputs.token_ids for row in rows]
    timings = _prompt_timings([len(ids) for ids in prompts], places, now - started)
    timed = [
        row._replace(timing=timing, started_s=started, first_token_s=now)
        for row, timing in zip(rows, timings, strict=True)
    ]
    flight = Flight(
        paths=tuple(map(Path, timed)),
        lanes=lanes,
        groups=init_groups([row.spec.sampler for row in rows], prompts, logits.own.shape[-1]),
        logits=logits,
        searches={
            row.row: start_search(row, logits) for row in timed if row.spec.search is not None
        },
    )
    return choose(flight)


def _prompt_timings(
    lengths: Sequence[int], places: Sequence[int], seconds: float
) -> list[PromptTiming]:
    """Share the time of a prefill among its rows by the tokens that were computed for each."""
    first = [places.index(place) == row for row, place in enumerate(places)]
    computed = [length if is_first else 0 for length, is_first in zip(lengths, first, strict=True)]
    total, seconds = sum(computed), max(seconds, 1e-9)
    return [
        PromptTiming(
            seconds=seconds * own / total,
            tokens_per_s=total / seconds,
            cached_tokens=length - own,
        )
        for own, length in zip(computed, lengths, strict=True)
    ]

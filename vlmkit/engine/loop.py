"""The decode loop: the only one in the project.

Every step launches the next forward pass before the host reads the current tokens, so Python and
the device work at the same time. Rows enter after their own prefill and leave when they finish
(continuous batching; Yu et al., "Orca", OSDI 2022). A row's tokens do not depend on its neighbours.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from vlmkit.cache import join_rows, select_rows
from vlmkit.decode import decode_step
from vlmkit.engine.rows import (
    PromptTiming,
    RowSpec,
    RowState,
    Step,
    apply_decisions,
    may_continue,
    observe_token,
    start_row,
    unstarted_step,
)
from vlmkit.engine.sampler_groups import (
    SamplerGroup,
    draw_tokens,
    init_groups,
    join_groups,
    select_groups,
    update_groups,
)
from vlmkit.prefill import prefill
from vlmkit.types import Cache, DecodeState, Inputs, Model


class LoopOptions(NamedTuple):
    """What all rows of one loop share."""

    batch_size: int  # rows in flight at most
    prefill_step_size: int  # tokens per prefill forward, padding included
    new_cache: Callable[[int], Cache]  # empty cache for a number of rows
    group_by_shape: bool = True  # prefill only rows with equal image grids together


class Drawn(NamedTuple):
    """The rows in flight and the token that each is about to take."""

    rows: tuple[RowState, ...]
    sampled: mx.array  # int32 [B], as drawn
    tokens: mx.array  # int32 [B], after forcing
    logits: mx.array  # float32 [B, V] that ``sampled`` was drawn from


class Batch(NamedTuple):
    """What the next step starts from."""

    drawn: Drawn
    state: DecodeState
    groups: tuple[SamplerGroup, ...]


def decode_rows(model: Model, specs: Iterable[RowSpec], options: LoopOptions) -> Iterator[Step]:
    """Generate every row to its end and yield each token as soon as it is known.

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
        free = options.batch_size - (len(batch.drawn.rows) if batch else 0)
        for arrival in _take_arrivals(source, waiting, free, options):
            if isinstance(arrival, Step):
                yield arrival
            else:
                joiner = _start_batch(model, arrival, options)
                batch = joiner if batch is None else _join(batch, joiner)
        if batch is None:
            return
        drawn = batch.drawn
        # Nothing may hold the old state when the step is launched: the caches would be copied.
        batch = _advance(model, batch) if any(map(may_continue, drawn.rows)) else None
        if batch is not None:
            mx.async_eval(batch.drawn.sampled)  # type: ignore[no-untyped-call]
        rows = []
        sampled, tokens = to_ids(drawn.sampled), to_ids(drawn.tokens)
        for place, row in enumerate(drawn.rows):
            row, step = observe_token(row, sampled[place], tokens[place], drawn.logits[place])
            rows.append(row)
            yield step
        batch = _settle(batch, rows) if batch is not None else None


def to_ids(token_ids: mx.array) -> list[int]:
    """Read int32 ``[B]`` token ids; waits for the device."""
    return cast("list[int]", token_ids.tolist())


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
        longest = len(group[0].spec.inputs.token_ids)
        while waiting and len(group) < free:
            inputs = waiting[0].spec.inputs
            longest = max(longest, len(inputs.token_ids))
            if longest * (len(group) + 1) > options.prefill_step_size:
                break
            same = inputs.image_grids == group[0].spec.inputs.image_grids
            if options.group_by_shape and not same:
                break
            group.append(waiting.popleft())
        free -= len(group)
        yield group


def _start_batch(model: Model, rows: Sequence[RowState], options: LoopOptions) -> Batch:
    """Prefill rows together and draw their first tokens; equal prompts are computed once."""
    started = time.perf_counter()
    inputs, places = _unique_inputs(rows)
    state, logits = prefill(
        model,
        model.embed(inputs),
        options.new_cache(len(inputs)),
        step_size=options.prefill_step_size,
    )
    if len(inputs) < len(rows):
        state, logits = select_state(state, places), logits[mx.array(places)]
    logits = logits.astype(mx.float32)
    samplers = [row.spec.sampler for row in rows]
    prompts = [row.spec.inputs.token_ids for row in rows]
    groups = init_groups(samplers, prompts, logits.shape[-1])
    groups, sampled = draw_tokens(groups, logits, samplers, [0] * len(rows))
    tokens = apply_decisions(sampled, rows)
    mx.eval(tokens, sampled)
    now = time.perf_counter()
    timings = _prompt_timings([len(ids) for ids in prompts], places, now - started)
    timed = tuple(
        row._replace(timing=timing, first_token_s=now)
        for row, timing in zip(rows, timings, strict=True)
    )
    drawn = Drawn(timed, sampled, tokens, logits)
    return Batch(drawn, state, update_groups(groups, tokens))


def _unique_inputs(rows: Sequence[RowState]) -> tuple[list[Inputs], list[int]]:
    """The different inputs among the rows, and for each row which of them is its own."""
    known: dict[tuple[bytes, bytes], int] = {}
    inputs: list[Inputs] = []
    places = []
    for row in rows:
        own = row.spec.inputs
        patches = b"" if own.patches is None else hashlib.blake2b(own.patches.tobytes()).digest()
        key = own.token_ids.tobytes(), patches + repr(own.image_grids).encode()
        if key not in known:
            known[key] = len(inputs)
            inputs.append(own)
        places.append(known[key])
    return inputs, places


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


def select_state(state: DecodeState, rows: Sequence[int]) -> DecodeState:
    """The state of these rows, in this order; a row may come twice (a branch)."""
    return DecodeState(
        cache=select_rows(state.cache, rows),
        next_positions=tuple(state.next_positions[row] for row in rows),
    )


def _advance(model: Model, batch: Batch) -> Batch:
    """Build the graph of the forward pass over the batch's tokens and of the next draw."""
    rows = batch.drawn.rows
    state, logits = decode_step(model, batch.state, batch.drawn.tokens)
    logits = logits.astype(mx.float32)
    groups, sampled = draw_tokens(
        batch.groups,
        logits,
        [row.spec.sampler for row in rows],
        [row.num_tokens + 1 for row in rows],
    )
    return Batch(Drawn(rows, sampled, sampled, logits), state, groups)


def _settle(batch: Batch, rows: Sequence[RowState]) -> Batch | None:
    """Drop the rows that finished and let the others' decisions act on the tokens just drawn."""
    keep = [place for place, row in enumerate(rows) if row.decision.finish is None]
    if not keep:
        return None
    state, groups = batch.state, batch.groups
    sampled, logits = batch.drawn.sampled, batch.drawn.logits
    if len(keep) < len(rows):
        index = mx.array(keep)
        state, groups = select_state(state, keep), select_groups(groups, keep)
        sampled, logits = sampled[index], logits[index]
    going = tuple(rows[place] for place in keep)
    tokens = apply_decisions(sampled, going)
    return Batch(Drawn(going, sampled, tokens, logits), state, update_groups(groups, tokens))


def _join(first: Batch, second: Batch) -> Batch:
    """Put the rows of two batches into one."""
    one, two = first.drawn, second.drawn
    return Batch(
        drawn=Drawn(
            rows=one.rows + two.rows,
            sampled=mx.concatenate([one.sampled, two.sampled]),
            tokens=mx.concatenate([one.tokens, two.tokens]),
            logits=mx.concatenate([one.logits, two.logits]),
        ),
        state=DecodeState(
            cache=join_rows([first.state.cache, second.state.cache]),
            next_positions=first.state.next_positions + second.state.next_positions,
        ),
        groups=join_groups(first.groups, second.groups, len(one.rows)),
    )

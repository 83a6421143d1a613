"""A batch of rows on its way through given tokens, under one policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.cache import finish_rows
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    DecodeState,
    Features,
    LayerKind,
    Model,
    PromptShape,
    Pytree,
)
from vlmkit.passes.decode import decode_hidden
from vlmkit.passes.prefill import prefill_hidden
from vlmkit.prompts import select_state

NewCache = Callable[[int], Cache]
"""An empty cache for a number of rows."""


class Variant(NamedTuple):
    """A policy that is compared with the reference."""

    new_cache: NewCache
    num_batches: int = 1  # that the rows are spread over


class Stream(NamedTuple):
    """Where all rows are."""

    batches: tuple[tuple[int, ...], ...]  # the rows of each
    states: tuple[DecodeState, ...]
    final: mx.array  # [B, hidden] of each row's last token
    attended: tuple[mx.array, ...]  # [B, ...] of each attention layer in the last step
    sinks: tuple[list[mx.array], ...]  # where each batch's layers leave what they attended to


def start_stream(
    model: Model,
    inputs: Sequence[Inputs],
    features: Mapping[bytes, Features],
    variant: Variant,
    *,
    step_size: int,
    with_prompt: bool,
) -> tuple[Stream, mx.array]:
    """Prefill prompts.

    Args:
        model: the model's functions.
        inputs: B prompts.
        features: of what they show.
        variant: the policy.
        step_size: tokens per forward pass, >= 1.
        with_prompt: also return the hidden states of the prompts.

    Returns:
        The stream, and the hidden states [N, hidden] of all prompt tokens but each prompt's last,
        one prompt after the other; none of them where they are not wanted.
    """
    parts = np.array_split(np.arange(len(inputs)), min(variant.num_batches, len(inputs)))
    batches = tuple(tuple(part.tolist()) for part in parts)
    states, finals, prompts = [], [], [mx.zeros((0, 1))]
    sinks: tuple[list[mx.array], ...] = tuple([] for _ in batches)
    for batch, sink in zip(batches, sinks, strict=True):
        own = [inputs[row] for row in batch]
        state, hidden = prefill_hidden(
            model,
            model.embed(own, features),
            variant.new_cache(len(batch)),
            step_size=step_size,
            keep_prompt=with_prompt,
        )
        cache = finish_rows(state.cache, [PromptShape.of(one) for one in own])
        states.append(state._replace(cache=_recording(cache, sink)))
        finals.append(hidden.final)
        if hidden.prompt is not None:
            ends = [len(one.token_ids) - 1 for one in own]
            prompts += [hidden.prompt[place, :end] for place, end in enumerate(ends)]
    flat = mx.concatenate(prompts[1:]) if with_prompt else prompts[0]
    stream = Stream(batches, tuple(states), mx.concatenate(finals), (), sinks)
    mx.eval(stream.final, flat)
    return stream, flat


def step_stream(model: Model, stream: Stream, token_ids: NDArray[np.int32]) -> Stream:
    """Feed each row a token.

    Args:
        model: the model's functions.
        stream: B rows, some of those that there were in the beginning.
        token_ids: by row, also of those that have gone.
    """
    states, finals, attended = [], [], []
    for batch, state, sink in zip(stream.batches, stream.states, stream.sinks, strict=True):
        sink.clear()
        following, hidden = decode_hidden(model, state, mx.array(token_ids[list(batch)]))
        states.append(following)
        finals.append(hidden.final)
        attended.append(tuple(sink))
        sink.clear()
    layers = tuple(mx.concatenate(list(parts)) for parts in zip(*attended, strict=True))
    return stream._replace(states=tuple(states), final=mx.concatenate(finals), attended=layers)


def keep_rows(stream: Stream, rows: Sequence[int]) -> Stream:
    """Go on with some of the rows, which keep their order."""
    wanted = set(rows)
    kept = [
        (tuple(row for row in batch if row in wanted), batch, state, sink)
        for batch, state, sink in zip(stream.batches, stream.states, stream.sinks, strict=True)
        if wanted.intersection(batch)
    ]
    order = [row for batch in stream.batches for row in batch]
    places = mx.array([place for place, row in enumerate(order) if row in wanted])
    return Stream(
        tuple(rest for rest, *_ in kept),
        tuple(
            select_state(state, [batch.index(row) for row in rest])
            for rest, batch, state, _ in kept
        ),
        stream.final[places],
        (),
        tuple(sink for *_, sink in kept),
    )


def _recording(cache: Cache, sink: list[mx.array]) -> Cache:
    """The cache, whose layers also leave in the sink what their queries found."""

    def recorded(kind: CacheKind) -> CacheKind:
        def attend(state: Pytree, queries: mx.array, plan: Pytree, scale: float) -> mx.array:
            out = kind.attend(state, queries, plan, scale)
            sink.append(out)
            return out

        return kind._replace(attend=attend)

    made: dict[int, LayerKind] = {}  # layers of one kind share one object, and so one plan
    for kind in cache.kinds:
        if id(kind) not in made:
            made[id(kind)] = recorded(kind) if isinstance(kind, CacheKind) else kind
    return cache._replace(kinds=tuple(made[id(kind)] for kind in cache.kinds))

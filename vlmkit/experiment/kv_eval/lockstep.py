"""Policies side by side on one reference trajectory, a token at a time through their own caches.

Every policy is fed the same tokens, so what it says at a position can be compared with what the
reference says there; and each decode step writes to and reads from the policy's own cache, so that
what is quantized or dropped while decoding really is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.decode import decode_hidden
from vlmkit.embed import encode_media
from vlmkit.experiment.kv_eval.measures import (
    Compared,
    Deviation,
    add_deviation,
    compare_logits,
    relative_l2,
)
from vlmkit.inputs import Inputs
from vlmkit.interface import Cache, CacheKind, DecodeState, LayerKind, Model, Pytree
from vlmkit.prefill import prefill_hidden

_BLOCK = 1 << 24  # logits at a time

NewCache = Callable[[int], Cache]
"""An empty cache for a number of rows."""


class Row(NamedTuple):
    """One prompt and the tokens that follow it."""

    inputs: Inputs
    token_ids: Sequence[int]  # at least one


class Variant(NamedTuple):
    """A policy that is compared with the reference."""

    new_cache: NewCache
    num_batches: int = 1  # that the rows are spread over


class Measured(NamedTuple):
    """One variant on one row."""

    prompt_kl: list[float]  # per prompt token but the last
    kl: list[float]  # per reference token
    agrees: list[bool]
    delta_logprobs: list[float]
    attention_error: list[float]  # per attention layer; empty where there was no decode step


class _Steps(NamedTuple):
    """One variant on all rows, L decode steps."""

    kl: NDArray[np.float32]  # [L, B]
    agrees: NDArray[np.bool_]  # [L, B]
    delta_logprobs: NDArray[np.float32]  # [L, B]
    attention_error: NDArray[np.float32]  # [layers, B]


class _Stream(NamedTuple):
    """A policy on its way through the tokens."""

    batches: tuple[tuple[int, ...], ...]  # the rows of each
    states: tuple[DecodeState, ...]
    final: mx.array  # [B, hidden] of each row's last token
    attended: tuple[mx.array, ...]  # [B, ...] of each attention layer in the last step
    sinks: tuple[list[mx.array], ...]  # where each batch's layers leave what they attended to


def run_lockstep(
    model: Model,
    rows: Sequence[Row],
    reference: NewCache,
    variants: Sequence[Variant],
    *,
    step_size: int,
    with_prompt: bool = True,
    is_over: Callable[[], bool] = lambda: False,
) -> list[list[Measured]] | None:
    """Run the reference and all variants over the same tokens.

    Args:
        model: the model's functions.
        rows: B prompts with the tokens that follow them.
        reference: the cache that variants are compared with.
        variants: the caches that are compared.
        step_size: tokens per forward pass of a prefill, >= 1.
        with_prompt: also compare what follows each token of the prompts.
        is_over: asked at each step; True: stop.

    Returns:
        By variant, by row; None where it was stopped.
    """
    inputs = [row.inputs for row in rows]
    features = encode_media(model, inputs)

    def start(variant: Variant) -> tuple[_Stream, mx.array]:
        parts = np.array_split(np.arange(len(rows)), min(variant.num_batches, len(rows)))
        batches = tuple(tuple(part.tolist()) for part in parts)
        states, finals, prompts = [], [], []
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
            states.append(state._replace(cache=_recording(state.cache, sink)))
            finals.append(hidden.final)
            if hidden.prompt is not None:
                prompts += [hidden.prompt[i, : len(one.token_ids) - 1]
                            for i, one in enumerate(own)]  # fmt: skip
        flat = mx.concatenate(prompts) if prompts else mx.zeros((0, 1))
        stream = _Stream(batches, tuple(states), mx.concatenate(finals), (), sinks)
        mx.eval(stream.final, flat)
        return stream, flat

    first, prompt = start(Variant(reference))
    following = np.concatenate([one.token_ids[1:] for one in inputs])
    streams: list[_Stream] = []
    prompt_kl: list[NDArray[np.float32]] = []
    nothing = np.zeros(0, np.float32)
    for variant in variants:
        if is_over():
            return None
        stream, own_prompt = start(variant)
        streams.append(stream)
        prompt_kl.append(
            _prompt_kl(model, prompt, own_prompt, following) if with_prompt else nothing
        )
    del prompt
    steps = _decode(model, rows, first, streams, is_over)
    if steps is None:
        return None
    ends = np.cumsum([0] + [len(one.token_ids) - 1 for one in inputs])
    return [
        [
            _measured(kl[ends[place] : ends[place + 1]], found, place, len(row.token_ids))
            for place, row in enumerate(rows)
        ]
        for kl, found in zip(prompt_kl, steps, strict=True)
    ]


def _decode(
    model: Model,
    rows: Sequence[Row],
    reference: _Stream,
    streams: list[_Stream],
    is_over: Callable[[], bool],
) -> list[_Steps] | None:
    """Feed the tokens and compare each step."""
    lengths = np.array([len(row.token_ids) for row in rows])
    tokens = np.zeros((len(rows), lengths.max()), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : lengths[place]] = row.token_ids
    compared: list[list[Compared]] = [[] for _ in streams]
    deviations: list[Deviation | None] = [None for _ in streams]
    for step in range(tokens.shape[1]):
        if is_over():
            return None
        if step:
            fed = mx.array(tokens[:, step - 1])
            weights = mx.array((step < lengths).astype(np.float32))
            reference = _step(model, reference, fed)
            for place in range(len(streams)):
                streams[place] = _step(model, streams[place], fed)
                if reference.attended:
                    deviations[place] = add_deviation(
                        deviations[place], reference.attended, streams[place].attended, weights
                    )
        wanted, logits = mx.array(tokens[:, step]), model.logits(reference.final)
        for found, stream in zip(compared, streams, strict=True):
            found.append(compare_logits(logits, model.logits(stream.final), wanted))
        states = [state.cache.layers for one in (reference, *streams) for state in one.states]
        mx.eval(states, [found[-1] for found in compared], deviations)
    return [_steps(found, error) for found, error in zip(compared, deviations, strict=True)]


def _steps(found: Sequence[Compared], deviation: Deviation | None) -> _Steps:
    kl, agrees, delta = (mx.stack(list(values)) for values in zip(*found, strict=True))
    error = mx.zeros((0, kl.shape[1])) if deviation is None else relative_l2(deviation)
    return _Steps(np.array(kl), np.array(agrees), np.array(delta), np.array(error))


def _step(model: Model, stream: _Stream, token_ids: mx.array) -> _Stream:
    states, finals, attended = [], [], []
    for batch, state, sink in zip(stream.batches, stream.states, stream.sinks, strict=True):
        sink.clear()
        own = token_ids[batch[0] : batch[-1] + 1]
        following, hidden = decode_hidden(model, state, own)
        states.append(following)
        finals.append(hidden.final)
        attended.append(tuple(sink))
        sink.clear()
    layers = tuple(mx.concatenate(list(parts)) for parts in zip(*attended, strict=True))
    return stream._replace(states=tuple(states), final=mx.concatenate(finals), attended=layers)


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


def _prompt_kl(
    model: Model, reference: mx.array, variant: mx.array, following: NDArray[np.int32]
) -> NDArray[np.float32]:
    """KL of what follows each token of the prompts, in blocks that fit the memory."""
    found = [np.zeros(0, np.float32)]
    if not len(following):
        return found[0]
    vocabulary = model.logits(reference[:1]).shape[-1]
    size = max(1, _BLOCK // vocabulary)
    for start in range(0, len(following), size):
        block = slice(start, start + size)
        compared = compare_logits(
            model.logits(reference[block]),
            model.logits(variant[block]),
            mx.array(following[block].astype(np.int32)),
        )
        found.append(np.array(compared.kl))
    return np.concatenate(found)


def _measured(prompt_kl: NDArray[np.float32], steps: _Steps, row: int, length: int) -> Measured:
    return Measured(
        prompt_kl.tolist(),
        steps.kl[:length, row].tolist(),
        steps.agrees[:length, row].tolist(),
        steps.delta_logprobs[:length, row].tolist(),
        steps.attention_error[:, row].tolist() if length > 1 else [],
    )

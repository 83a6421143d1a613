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

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import KVSpec, Model
from vlmkit.experiment.kv_eval.measures import (
    Compared,
    compare_logits,
    layer_deviation,
    relative_l2,
)
from vlmkit.experiment.kv_eval.streams import (
    NewCache,
    Stream,
    Variant,
    keep_rows,
    start_stream,
    step_stream,
)
from vlmkit.passes.embed import encode_media

_BLOCK = 1 << 24  # logits at a time


class Row(NamedTuple):
    """One prompt and the tokens that follow it."""

    inputs: Inputs
    token_ids: Sequence[int]  # at least one


class Measured(NamedTuple):
    """One variant on one row."""

    prompt_kl: list[float]  # per prompt token but the last
    kl: list[float]  # per reference token
    agrees: list[bool]
    delta_logprobs: list[float]
    attention_error: list[float]  # per attention layer; empty where there was no decode step


class _Steps:
    """One variant on all rows, L steps."""

    def __init__(self, length: int, num_rows: int, num_layers: int) -> None:
        self.kl = np.zeros((length, num_rows))
        self.agrees = np.zeros((length, num_rows), np.bool_)
        self.delta_logprobs = np.zeros((length, num_rows))
        self.squares = np.zeros((2, num_layers, num_rows))  # of the difference, the reference
        self.has_layers = False


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

    def start(variant: Variant) -> tuple[Stream, mx.array]:
        return start_stream(
            model, inputs, features, variant, step_size=step_size, with_prompt=with_prompt
        )

    first, prompt = start(Variant(reference))
    following = np.concatenate([one.token_ids[1:] for one in inputs])
    streams: list[Stream] = []
    prompt_kl: list[NDArray[np.float32]] = []
    for variant in variants:
        if is_over():
            return None
        stream, own_prompt = start(variant)
        streams.append(stream)
        prompt_kl.append(_prompt_kl(model, prompt, own_prompt, following))
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
    reference: Stream,
    streams: list[Stream],
    is_over: Callable[[], bool],
) -> list[_Steps] | None:
    """Feed the tokens and compare each step."""
    lengths = np.array([len(row.token_ids) for row in rows])
    tokens = np.zeros((len(rows), lengths.max()), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : lengths[place]] = row.token_ids
    num_layers = sum(isinstance(spec, KVSpec) for spec in model.layer_specs)
    steps = [_Steps(tokens.shape[1], len(rows), num_layers) for _ in streams]
    order = list(range(len(rows)))
    for step in range(tokens.shape[1]):
        if is_over():
            return None
        left = [row for row in order if lengths[row] > step]
        if 2 * len(left) <= len(order):  # taking rows out copies the caches
            order = left
            reference = keep_rows(reference, order)
            streams[:] = [keep_rows(stream, order) for stream in streams]
        if step:
            reference = step_stream(model, reference, tokens[:, step - 1])
            for place in range(len(streams)):
                streams[place] = step_stream(model, streams[place], tokens[:, step - 1])
        compared, deviations = _compare(model, reference, streams, tokens[order, step])
        running = lengths[order] > step
        for found, own, deviation in zip(steps, compared, deviations, strict=True):
            found.kl[step, order] = np.array(own.kl)
            found.agrees[step, order] = np.array(own.agrees)
            found.delta_logprobs[step, order] = np.array(own.delta_logprobs)
            if deviation is not None:
                found.has_layers = True
                found.squares[:, :, order] += np.where(running, np.array(deviation), 0)
    return steps


def _compare(
    model: Model, reference: Stream, streams: Sequence[Stream], token_ids: NDArray[np.int32]
) -> tuple[list[Compared], list[mx.array | None]]:
    """Evaluate one step of all streams: distributions, and squares of what layers attended to."""
    wanted, logits = mx.array(token_ids), model.logits(reference.final)
    compared = [compare_logits(logits, model.logits(stream.final), wanted) for stream in streams]
    deviations = [
        layer_deviation(reference.attended, stream.attended) if reference.attended else None
        for stream in streams
    ]
    states = [state.cache.layers for one in (reference, *streams) for state in one.states]
    mx.eval(states, compared, deviations)
    return compared, deviations


def _prompt_kl(
    model: Model, reference: mx.array, variant: mx.array, following: NDArray[np.int32]
) -> NDArray[np.float32]:
    """KL of what follows each token of the prompts, in blocks that fit the memory."""
    found = [np.zeros(0, np.float32)]
    if not len(reference):
        return found[0]
    vocabulary = model.logits(reference[:1]).shape[-1]
    size = max(1, _BLOCK // vocabulary)
    for start in range(0, len(reference), size):
        block = slice(start, start + size)
        compared = compare_logits(
            model.logits(reference[block]),
            model.logits(variant[block]),
            mx.array(following[block].astype(np.int32)),
        )
        found.append(np.array(compared.kl))
    return np.concatenate(found)


def _measured(prompt_kl: NDArray[np.float32], steps: _Steps, row: int, length: int) -> Measured:
    error = relative_l2(*steps.squares[:, :, row]) if steps.has_layers and length > 1 else []
    return Measured(
        prompt_kl.tolist(),
        steps.kl[:length, row].tolist(),
        steps.agrees[:length, row].tolist(),
        steps.delta_logprobs[:length, row].tolist(),
        list(error),
    )

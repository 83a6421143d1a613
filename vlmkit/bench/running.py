"""Caches in the middle of their decoding, one token a step."""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np

from vlmkit.backend.forms import Forms
from vlmkit.cache import CacheConfig, build_cache, cache_num_bytes, finish_rows, new_cache
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    DecodeState,
    KVSpec,
    Model,
    PromptShape,
    Span,
)
from vlmkit.models.decoder import plan_kinds
from vlmkit.passes.decode import decode_step
from vlmkit.passes.prefill import prefill

CHUNK = 2048
"""Tokens that fill a cache at a time, and those of one forward pass of a prefill."""

_TOKEN_ID = 97
_SEED = 0

Advance = Callable[[Cache], tuple[Cache, mx.array]]
Turn = Callable[[], float]
"""() -> seconds of one sample"""


class Running:
    """A cache that goes on by one token at every turn, in place."""

    def __init__(self, cache: Cache, advance: Advance) -> None:
        self._caches = [cache]
        self._advance = advance

    def turn(self) -> float:
        """Take a step, and return the seconds that it took."""
        began = time.perf_counter()
        # Nothing else holds the cache while it is computed, so its buffers are written in place.
        cache, output = self._advance(self._caches.pop())
        mx.eval(cache.layers, output)
        seconds = time.perf_counter() - began
        self._caches.append(cache)
        return seconds

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens that each row has."""
        return self._caches[0].lengths

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        return cache_num_bytes(self._caches[0])


def layers_running(
    forms: Forms,
    dtype: mx.Dtype,
    config: CacheConfig,
    spec: KVSpec,
    num_layers: int,
    num_heads: int,
    *,
    batch: int,
    context: int,
) -> Running:
    """Attention layers alone: append a token to each, and attend."""
    cache = build_cache(
        config, [spec] * num_layers, batch, dtype, attention=forms.attention, prefixed=None
    )
    draw = _normal(dtype)
    queries = draw(batch, num_heads, 1, spec.key_dim)
    keys, values = (
        draw(batch, spec.num_kv_heads, 1, dim) for dim in (spec.key_dim, spec.value_dim)
    )
    mx.eval(queries, keys, values)
    scale = spec.key_dim**-0.5

    def advance(cache: Cache) -> tuple[Cache, mx.array]:
        span = Span(cache.lengths, (1,) * batch, 1)
        plans, layers, output = plan_kinds(cache, span), [], queries
        for kind, state in zip(cache.kinds, cache.layers, strict=True):
            assert isinstance(kind, CacheKind)
            state = kind.append(state, keys, values, plans[id(kind)])
            output = kind.attend(state, output, plans[id(kind)], scale)
            layers.append(state)
        return Cache(cache.kinds, tuple(layers), span.ends), output

    return Running(filled(cache, (spec,) * num_layers, context, dtype), advance)


def model_running(model: Model, config: CacheConfig, *, batch: int, context: int) -> Running:
    """Whole decode steps of a model, whose cache holds random keys and values."""
    cache = filled(new_cache(config, model, batch), model.layer_specs, context, model.dtype)
    token_ids = mx.array([_TOKEN_ID] * batch, mx.int32)

    def advance(cache: Cache) -> tuple[Cache, mx.array]:
        state, logits = decode_step(model, DecodeState(cache, cache.lengths), token_ids)
        return state.cache, logits

    return Running(cache, advance)


def prefill_turn(model: Model, config: CacheConfig, *, batch: int, context: int) -> Turn:
    """Whole prompts of random bytes through a model."""
    generator = np.random.default_rng(_SEED)
    rows = [Inputs.of(generator.integers(32, 127, context).astype(np.int32)) for _ in range(batch)]
    embeddings = model.embed(rows, {})
    mx.eval(embeddings.piece.hidden)

    def turn() -> float:
        began = time.perf_counter()
        state, logits = prefill(model, embeddings, new_cache(config, model, batch), step_size=CHUNK)
        cache = finish_rows(state.cache, [PromptShape(context)] * batch)
        mx.eval(cache.layers, logits)
        return time.perf_counter() - began

    return turn


def filled(cache: Cache, specs: tuple[object, ...], context: int, dtype: mx.Dtype) -> Cache:
    """Add a prompt of random keys and values to all attention layers, the same to each."""
    batch, draw = len(cache.lengths), _normal(dtype)
    for start in range(0, context, CHUNK):
        width = min(CHUNK, context - start)
        span = Span(cache.lengths, (width,) * batch, width)
        plans, layers = plan_kinds(cache, span), list(cache.layers)
        for index, (kind, spec) in enumerate(zip(cache.kinds, specs, strict=True)):
            if isinstance(kind, CacheKind) and isinstance(spec, KVSpec):
                keys, values = (
                    draw(batch, spec.num_kv_heads, width, dim)
                    for dim in (spec.key_dim, spec.value_dim)
                )
                layers[index] = kind.append(layers[index], keys, values, plans[id(kind)])
                if kind.finishing is not None and kind.finishing.observe is not None:
                    assert spec.num_heads is not None
                    layers[index] = kind.finishing.observe(
                        layers[index],
                        draw(batch, spec.num_heads, width, spec.key_dim),
                        plans[id(kind)],
                        spec.key_dim**-0.5,
                    )
        cache = Cache(cache.kinds, tuple(layers), span.ends)
        del layers, plans
        mx.eval(cache.layers)
    return finish_rows(cache, [PromptShape(context)] * batch)


def _normal(dtype: mx.Dtype) -> Callable[..., mx.array]:
    """Draw normal numbers, the same in every run."""
    keys = [mx.random.key(_SEED)]

    def draw(*shape: int) -> mx.array:
        own, following = mx.random.split(keys.pop())
        keys.append(following)
        return mx.random.normal(shape, key=own).astype(dtype)

    return draw

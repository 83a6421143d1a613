"""The cache of a whole model: build it from a config, take rows out of it, put rows together."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.types import Cache, CacheKind, LayerShape

CacheConfig = DenseConfig


def _kind(config: CacheConfig, layer_shapes: Sequence[LayerShape]) -> CacheKind:
    return dense(config)


def build_cache(
    config: CacheConfig, layer_shapes: Sequence[LayerShape], batch: int, dtype: mx.Dtype
) -> Cache:
    """Build an empty cache.

    Args:
        config: the cache's config.
        layer_shapes: what each layer stores per token.
        batch: number of rows.
        dtype: the dtype of keys and values as the model computes them.
    """
    kind = _kind(config, layer_shapes)
    layers = tuple(kind.init(batch, shape, dtype) for shape in layer_shapes)
    return Cache((kind,) * len(layers), layers, (0,) * batch)


def cache_num_bytes(cache: Cache) -> int:
    """Return the bytes of all arrays of the cache."""
    return sum(
        kind.num_bytes(layer) for kind, layer in zip(cache.kinds, cache.layers, strict=True)
    )


def select_rows(cache: Cache, rows: Sequence[int]) -> Cache:
    """Return a cache of these rows, in this order. A row may come twice."""
    layers = tuple(
        kind.select(layer, rows) for kind, layer in zip(cache.kinds, cache.layers, strict=True)
    )
    return Cache(cache.kinds, layers, tuple(cache.lengths[row] for row in rows))


def join_rows(caches: Sequence[Cache]) -> Cache:
    """Return one cache with the rows of all, in order. All have the same kinds per layer."""
    first = caches[0]
    layers = tuple(
        kind.join([cache.layers[index] for cache in caches])
        for index, kind in enumerate(first.kinds)
    )
    return Cache(first.kinds, layers, tuple(n for cache in caches for n in cache.lengths))

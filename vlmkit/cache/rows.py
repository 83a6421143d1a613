"""Rows of a model's cache: taken out, put together, cut back, and measured."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from vlmkit.contracts.interface import Cache, CacheKind, LayerKind, PromptShape
from vlmkit.errors import VlmkitError


def select_rows(cache: Cache, rows: Sequence[int]) -> Cache:
    """Return a cache of these rows, in this order. A row may come twice."""
    if list(rows) == list(range(len(cache.lengths))):
        return cache
    layers = tuple(
        kind.select(layer, rows, cache.lengths)
        for kind, layer in zip(cache.kinds, cache.layers, strict=True)
    )
    return Cache(cache.kinds, layers, tuple(cache.lengths[row] for row in rows))


def join_rows(caches: Sequence[Cache]) -> Cache:
    """Return one cache with the rows of all, in order.

    Args:
        caches: one or more, built from equal configs. Buffers of different sizes are brought to
            the largest.

    Raises:
        VlmkitError: the caches' kinds or their settings differ.
    """
    first, seen = caches[0], [cache.lengths for cache in caches]
    for other in caches[1:]:
        for index, (one, two) in enumerate(zip(first.kinds, other.kinds, strict=True)):
            if (one.name, one.settings) != (two.name, two.settings):
                raise VlmkitError(
                    f"caches of different kinds can't be joined: layer {index} is {_said(one)} in "
                    f"one and {_said(two)} in the other"
                )
    layers = tuple(
        kind.join([cache.layers[index] for cache in caches], seen)
        for index, kind in enumerate(first.kinds)
    )
    return Cache(first.kinds, layers, tuple(n for cache in caches for n in cache.lengths))


def _said(kind: LayerKind) -> str:
    return f"{kind.name} {kind.settings}" if kind.settings else kind.name


def trim_rows(cache: Cache, lengths: Sequence[int]) -> Cache:
    """Return the cache as it was when row b had seen ``lengths[b]`` tokens.

    Raises:
        VlmkitError: a layer has forgotten what it would have to go back to (a recurrent state, a
            window that has dropped tokens), or a length is out of range.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.cache import DenseConfig, build_cache
        >>> from vlmkit.contracts.interface import KVSpec
        >>> empty = build_cache(DenseConfig(), [KVSpec(1, 4, 4)], 1, mx.float32)
        >>> trim_rows(empty._replace(lengths=(7,)), (5,)).lengths
        (5,)
    """
    for seen, kept in zip(cache.lengths, lengths, strict=True):
        if not 0 <= kept <= seen:
            raise VlmkitError(
                f"cache: cannot go back to {kept} tokens; it has seen {seen}", path=("cache",)
            )
    layers = tuple(
        kind.trim(layer, cache.lengths, lengths)
        for kind, layer in zip(cache.kinds, cache.layers, strict=True)
    )
    return Cache(cache.kinds, layers, tuple(lengths))


def finishes(cache: Cache) -> bool:
    """Whether a layer does something to a row once its whole prompt has gone through the model."""
    return any(isinstance(kind, CacheKind) and kind.finishing is not None for kind in cache.kinds)


def finish_rows(cache: Cache, prompts: Sequence[PromptShape]) -> Cache:
    """Return the cache after the end of its rows' prompts, evaluated layer by layer.

    A cache whose kinds do nothing at that time is returned as it is.

    Args:
        cache: whose rows have seen their prompts and nothing else.
        prompts: one per row.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.cache import DenseConfig, build_cache
        >>> from vlmkit.contracts.interface import KVSpec
        >>> cache = build_cache(DenseConfig(), [KVSpec(1, 4, 4)], 1, mx.float32)
        >>> finish_rows(cache, [PromptShape(0)]) is cache
        True
    """
    if not finishes(cache):
        return cache
    assert cache.lengths == tuple(prompt.length for prompt in prompts)
    layers = list(cache.layers)
    cache = cache._replace(layers=())  # else every layer is held twice until the last is done
    for place, kind in enumerate(cache.kinds):
        if isinstance(kind, CacheKind) and kind.finishing is not None:
            layers[place] = kind.finishing.finish(layers[place], prompts)
            mx.eval(layers[place])
    return cache._replace(layers=tuple(layers))


def cache_num_bytes(cache: Cache) -> int:
    """Return the bytes of all arrays of the cache, free slots included."""
    return sum(kind.num_bytes(layer) for kind, layer in zip(cache.kinds, cache.layers, strict=True))

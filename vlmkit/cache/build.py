"""The cache of a whole model: build it from a config, take rows out of it, put rows together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, assert_never

import mlx.core as mx
from pydantic import Field

from vlmkit.cache.affine import GROUP_SIZES, AffineConfig, affine, affine_storage
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.rotating import RotatingConfig, rotating
from vlmkit.cache.storage import Codec, Storage, plain
from vlmkit.errors import VlmkitError
from vlmkit.types import Cache, CacheKind, LayerShape

CacheConfig = Annotated[DenseConfig | RotatingConfig | AffineConfig, Field(discriminator="kind")]


def build_cache(
    config: CacheConfig, layer_shapes: Sequence[LayerShape], batch: int, dtype: mx.Dtype
) -> Cache:
    """Build an empty cache.

    Args:
        config: the cache's config; it applies to every layer.
        layer_shapes: what each layer stores per token.
        batch: number of rows.
        dtype: the dtype of keys and values as the model computes them.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> cache = build_cache(DenseConfig(), [LayerShape(2, 64)] * 3, batch=1, dtype=mx.float32)
        >>> len(cache.layers), cache.lengths
        (3, (0,))
    """
    check_layers(config, layer_shapes)
    kind = _kind(config)
    layers = tuple(kind.init(batch, shape, dtype) for shape in layer_shapes)
    return Cache((kind,) * len(layers), layers, (0,) * batch)


def check_layers(config: CacheConfig, layer_shapes: Sequence[LayerShape]) -> None:
    """Raise VlmkitError unless the config works for every layer."""
    if not isinstance(config, AffineConfig):
        return
    for index, shape in enumerate(layer_shapes):
        if shape.head_dim % config.group_size == 0:
            continue
        sizes = [str(size) for size in GROUP_SIZES if shape.head_dim % size == 0]
        remedy = f"use group_size {' or '.join(sizes)}" if sizes else "use a cache of kind dense"
        raise VlmkitError(
            f"cache.group_size: {config.group_size} does not divide head_dim {shape.head_dim} "
            f"of layer {index}; {remedy}"
        )


def _kind(config: CacheConfig) -> CacheKind:
    match config:
        case DenseConfig():
            return dense(config)
        case RotatingConfig():
            return rotating(config)
        case AffineConfig():
            return affine(config)
        case _:
            assert_never(config)


def describe_cache(
    config: CacheConfig, layer_shapes: Sequence[LayerShape], dtype: mx.Dtype
) -> dict[str, Any]:
    """Return what the config comes to on these layers, counted from arrays as stored.

    Returns:
        The config's fields, ``num_layers``, ``key_bits_per_element`` and
        ``value_bits_per_element`` (scales and biases included), and ``bytes_per_token`` over all
        layers. Buffers are allocated in steps of 256 slots.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> config = AffineConfig(bits=4, group_size=64)
        >>> facts = describe_cache(config, [LayerShape(2, 64)] * 3, mx.float32)
        >>> facts["key_bits_per_element"], facts["bytes_per_token"]
        (4.5, 432)
    """
    check_layers(config, layer_shapes)
    storage = Storage(plain, plain)
    if isinstance(config, AffineConfig):
        storage = affine_storage(config)
    num_elements = sum(shape.num_kv_heads * shape.head_dim for shape in layer_shapes)
    key_bytes, value_bytes = (
        sum(_token_bytes(codec, shape, dtype) for shape in layer_shapes)
        for codec in (storage.keys, storage.values)
    )
    return {
        **config.model_dump(mode="json"),
        "num_layers": len(layer_shapes),
        "key_bits_per_element": 8 * key_bytes / max(num_elements, 1),
        "value_bits_per_element": 8 * value_bytes / max(num_elements, 1),
        "bytes_per_token": key_bytes + value_bytes,
    }


def num_dropped(config: CacheConfig, num_prompt_tokens: int, num_tokens: int) -> int:
    """Count the tokens of a prompt that a cache of a limited size no longer holds.

    Args:
        config: the cache's config.
        num_prompt_tokens: length of the prompt.
        num_tokens: prompt and generated tokens that went through the model.

    Example:
        >>> config = RotatingConfig(max_size=8, keep=2)
        >>> [num_dropped(config, 10, num_tokens) for num_tokens in (8, 10, 12, 99)]
        [0, 2, 4, 8]
    """
    if isinstance(config, DenseConfig) or config.max_size is None:
        return 0
    window_start = num_tokens - (config.max_size - config.keep)
    return max(min(num_prompt_tokens, window_start) - config.keep, 0)


def _token_bytes(codec: Codec, shape: LayerShape, dtype: mx.Dtype) -> int:
    stored = codec.encode(mx.zeros((1, shape.num_kv_heads, 1, shape.head_dim), dtype))
    return sum(x.nbytes for x in stored)


def cache_num_bytes(cache: Cache) -> int:
    """Return the bytes of all arrays of the cache, free slots included."""
    return sum(kind.num_bytes(layer) for kind, layer in zip(cache.kinds, cache.layers, strict=True))


def select_rows(cache: Cache, rows: Sequence[int]) -> Cache:
    """Return a cache of these rows, in this order. A row may come twice."""
    layers = tuple(
        kind.select(layer, rows) for kind, layer in zip(cache.kinds, cache.layers, strict=True)
    )
    return Cache(cache.kinds, layers, tuple(cache.lengths[row] for row in rows))


def join_rows(caches: Sequence[Cache]) -> Cache:
    """Return one cache with the rows of all, in order.

    Args:
        caches: one or more, built from equal configs. Buffers of different sizes are brought to
            the largest.
    """
    first = caches[0]
    if any([k.name for k in one.kinds] != [k.name for k in first.kinds] for one in caches):
        kinds = [sorted({kind.name for kind in one.kinds}) for one in caches]
        raise VlmkitError(f"caches of different kinds can't be joined: {kinds}")
    layers = tuple(
        kind.join([cache.layers[index] for cache in caches])
        for index, kind in enumerate(first.kinds)
    )
    return Cache(first.kinds, layers, tuple(n for cache in caches for n in cache.lengths))

"""The cache of a whole model: which kind each layer gets under a config."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, assert_never

import mlx.core as mx
from pydantic import Field

from vlmkit.cache.affine import GROUP_SIZES, AffineConfig, affine, affine_storage
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.recurrent import recurrent
from vlmkit.cache.rotating import RotatingConfig, rotating, windowed
from vlmkit.cache.storage import Codec, Storage, plain
from vlmkit.errors import VlmkitError
from vlmkit.interface import Cache, CacheKind, KVSpec, LayerKind, LayerSpec, RecurrentSpec

CacheConfig = Annotated[DenseConfig | RotatingConfig | AffineConfig, Field(discriminator="kind")]


def build_cache(
    config: CacheConfig, layer_specs: Sequence[LayerSpec], batch: int, dtype: mx.Dtype
) -> Cache:
    """Build an empty cache.

    The config applies to every attention layer. A layer with a sliding window holds that window,
    stored as the config says; a recurrent layer holds its own state.

    Args:
        config: the cache's config.
        layer_specs: what each layer stores.
        batch: number of rows.
        dtype: the dtype of keys and values as the model computes them.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> cache = build_cache(DenseConfig(), [KVSpec(2, 64, 64)] * 3, batch=1, dtype=mx.float32)
        >>> len(cache.layers), cache.lengths
        (3, (0,))
    """
    check_layers(config, layer_specs)
    made: dict[object, LayerKind] = {}
    kinds, layers = [], []
    for spec in layer_specs:
        state: Any
        if isinstance(spec, RecurrentSpec):
            kind = made.setdefault("recurrent", recurrent())
            state = kind.init(batch, spec, dtype)  # type: ignore[arg-type]
        else:
            if spec.window not in made:
                made[spec.window] = _kind(config, spec.window)
            kind = made[spec.window]
            state = kind.init(batch, spec, dtype)  # type: ignore[arg-type]
        kinds.append(kind)
        layers.append(state)
    return Cache(tuple(kinds), tuple(layers), (0,) * batch)


def check_layers(config: CacheConfig, layer_specs: Sequence[LayerSpec]) -> None:
    """Raise VlmkitError unless the config works for every attention layer."""
    if not isinstance(config, AffineConfig):
        return
    for index, spec in enumerate(layer_specs):
        if isinstance(spec, RecurrentSpec):
            continue
        dims = {spec.key_dim, spec.value_dim}
        if all(dim % config.group_size == 0 for dim in dims):
            continue
        sizes = [str(size) for size in GROUP_SIZES if all(dim % size == 0 for dim in dims)]
        remedy = f"use group_size {' or '.join(sizes)}" if sizes else "use a cache of kind dense"
        found = " and ".join(str(dim) for dim in sorted(dims))
        raise VlmkitError(
            f"cache.group_size: {config.group_size} does not divide head_dim {found} "
            f"of layer {index}; {remedy}",
            path=("cache", "group_size"),
        )


def _kind(config: CacheConfig, window: int | None) -> CacheKind:
    window = _held(config, window)
    match config:
        case DenseConfig():
            return dense(config) if window is None else windowed(config.kind, window)
        case RotatingConfig():
            return rotating(config) if window is None else windowed(config.kind, window)
        case AffineConfig():
            if window is not None:
                config = config.model_copy(update={"max_size": window, "keep": 0})
            return affine(config)
        case _:
            assert_never(config)


def _held(config: CacheConfig, window: int | None) -> int | None:
    """Return the window that a layer with one really has; a config may hold less."""
    if window is None or isinstance(config, DenseConfig) or config.max_size is None:
        return window
    return min(window, config.max_size - config.keep)


def describe_cache(
    config: CacheConfig, layer_specs: Sequence[LayerSpec], dtype: mx.Dtype
) -> dict[str, Any]:
    """Return what the config comes to on these layers, counted from arrays as stored.

    Returns:
        The config's fields, ``num_layers``, ``key_bits_per_element`` and
        ``value_bits_per_element`` (scales and biases included), and ``bytes_per_token`` over all
        attention layers. Buffers are allocated in steps of 256 slots. Where the model has them,
        also ``sliding_windows`` (by size, the layers that hold no more than that; a config that
        holds less narrows them) and ``recurrent_layers``, which the config does not change, with
        their ``bytes_per_row``.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> config = AffineConfig(bits=4, group_size=64)
        >>> facts = describe_cache(config, [KVSpec(2, 64, 64)] * 3, mx.float32)
        >>> facts["key_bits_per_element"], facts["bytes_per_token"]
        (4.5, 432)
    """
    check_layers(config, layer_specs)
    storage = _storage(config)
    attention = [spec for spec in layer_specs if isinstance(spec, KVSpec)]
    key_bytes = sum(
        _token_bytes(storage.keys, spec.num_kv_heads, spec.key_dim, dtype) for spec in attention
    )
    value_bytes = sum(
        _token_bytes(storage.values, spec.num_kv_heads, spec.value_dim, dtype) for spec in attention
    )
    num_keys = sum(spec.num_kv_heads * spec.key_dim for spec in attention)
    num_values = sum(spec.num_kv_heads * spec.value_dim for spec in attention)
    facts: dict[str, Any] = {
        **config.model_dump(mode="json"),
        "num_layers": len(layer_specs),
        "key_bits_per_element": 8 * key_bytes / max(num_keys, 1),
        "value_bits_per_element": 8 * value_bytes / max(num_values, 1),
        "bytes_per_token": key_bytes + value_bytes,
    }
    windows: dict[int, list[int]] = {}
    for index, spec in enumerate(layer_specs):
        window = _held(config, spec.window) if isinstance(spec, KVSpec) else None
        if window is not None:
            windows.setdefault(window, []).append(index)
    if windows:
        facts["sliding_windows"] = {str(size): layers for size, layers in windows.items()}
    states = [spec for spec in layer_specs if isinstance(spec, RecurrentSpec)]
    if states:
        kind = recurrent()
        facts["recurrent_layers"] = [
            index for index, spec in enumerate(layer_specs) if isinstance(spec, RecurrentSpec)
        ]
        facts["bytes_per_row"] = sum(kind.num_bytes(kind.init(1, spec, dtype)) for spec in states)
    return facts


def row_bytes(
    config: CacheConfig, layer_specs: Sequence[LayerSpec], dtype: mx.Dtype
) -> Callable[[int], int]:
    """Return what says how many bytes a row's tokens take, over all layers.

    Args:
        config: the cache's config, which works for these layers.
        layer_specs: what each layer stores.
        dtype: the dtype of keys and values as the model computes them.

    Returns:
        A function of the number of tokens that went through the model, those of the prompt
        included. Buffers are larger, by up to 255 tokens.

    Example:
        >>> size = row_bytes(RotatingConfig(max_size=4, keep=1), [KVSpec(2, 64, 64)], mx.float32)
        >>> size(1), size(4), size(10)
        (1024, 4096, 4096)
    """
    storage, held = _storage(config), None if isinstance(config, DenseConfig) else config.max_size
    state, kind = 0, recurrent()
    by_limit: dict[float, int] = {}  # bytes per token of the layers that hold no more than that
    for spec in layer_specs:
        if isinstance(spec, RecurrentSpec):
            state += kind.num_bytes(kind.init(1, spec, dtype))
            continue
        sizes = (held, _held(config, spec.window))
        limit = min((size for size in sizes if size is not None), default=math.inf)
        keys = _token_bytes(storage.keys, spec.num_kv_heads, spec.key_dim, dtype)
        values = _token_bytes(storage.values, spec.num_kv_heads, spec.value_dim, dtype)
        by_limit[limit] = by_limit.get(limit, 0) + keys + values

    def size(num_tokens: int) -> int:
        return state + sum(int(min(num_tokens, most)) * one for most, one in by_limit.items())

    return size


def _storage(config: CacheConfig) -> Storage:
    return affine_storage(config) if isinstance(config, AffineConfig) else Storage(plain, plain)


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


def _token_bytes(codec: Codec, num_heads: int, dim: int, dtype: mx.Dtype) -> int:
    return sum(x.nbytes for x in codec.encode(mx.zeros((1, num_heads, 1, dim), dtype)))

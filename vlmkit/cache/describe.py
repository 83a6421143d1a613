"""What a cache comes to on a model's layers: bits, bytes, and the tokens that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.cache.build import CacheConfig, kinds_of
from vlmkit.cache.layout import round_up
from vlmkit.cache.per_layer import PerLayerConfig
from vlmkit.cache.recurrent import recurrent
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, LayerKind, LayerSpec, RecurrentSpec

_LONG = 4096  # tokens of the row that bits and bytes per token are said of


class RowHeld(NamedTuple):
    """What a cache holds of one row; where layers differ, the worst of them."""

    held_tokens: int
    quantized_tokens: int
    dropped_prompt_tokens: int  # that a query of the layer would see, were they there


def describe_cache(
    config: CacheConfig,
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    *,
    sharing: bool = True,
) -> dict[str, Any]:
    """Return what the config comes to on these layers, counted from arrays as stored.

    Args:
        config: the cache's config.
        layer_specs: what each layer stores.
        dtype: the dtype of keys and values as the model computes them.
        sharing: rows can share what they begin with, as far as the cache allows.

    Returns:
        The config's fields, ``num_layers``, ``num_sharing_layers`` (those where rows that continue
        one long prompt read one copy of it; in the others each has its own),
        ``key_bits_per_element`` and ``value_bits_per_element`` (scales and biases included), and
        ``bytes_per_token`` over all attention layers, as in a row of 4,096 tokens. Buffers are
        allocated in steps of 256 slots.
        Where the model has them, also ``sliding_windows`` (by size, the layers that hold no more
        than that; a config that holds less narrows them) and ``recurrent_layers``, which the config
        does not change, with their ``bytes_per_row``. Where the config tells layers apart, also
        ``layers``: of each kind, which they are, and the bits and bytes of a token in one of them.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> from vlmkit.cache.affine import AffineConfig
        >>> config = AffineConfig(bits=4, group_size=64)
        >>> facts = describe_cache(config, [KVSpec(2, 64, 64)] * 3, mx.float32)
        >>> facts["key_bits_per_element"], facts["bytes_per_token"]
        (4.5, 432)
    """
    kinds = kinds_of(config, layer_specs, dtype)
    key_bytes = value_bytes = 0.0
    num_keys = num_values = num_sharing = 0
    windows: dict[int, list[int]] = {}
    for index, kind, spec in attention_layers(kinds, layer_specs):
        held = kind.hold(spec, dtype, _LONG)
        key_bytes += held.key_bytes / max(held.num_tokens, 1)
        value_bytes += held.value_bytes / max(held.num_tokens, 1)
        num_sharing += kind.keeps_all
        num_keys += spec.num_kv_heads * spec.key_dim
        num_values += spec.num_kv_heads * spec.value_dim
        if spec.window is not None:
            windows.setdefault(kind.hold(spec, dtype, spec.window).num_tokens, []).append(index)
    facts: dict[str, Any] = {
        **config.model_dump(mode="json"),
        "num_layers": len(layer_specs),
        "num_sharing_layers": num_sharing if sharing else 0,
        "key_bits_per_element": 8 * key_bytes / max(num_keys, 1),
        "value_bits_per_element": 8 * value_bytes / max(num_values, 1),
        "bytes_per_token": round(key_bytes + value_bytes),
    }
    if isinstance(config, PerLayerConfig):
        facts["layers"] = _unlike_layers(kinds, layer_specs, dtype)
    if windows:
        facts["sliding_windows"] = {str(size): layers for size, layers in windows.items()}
    states = {i: spec for i, spec in enumerate(layer_specs) if isinstance(spec, RecurrentSpec)}
    if states:
        kept = recurrent()
        facts["recurrent_layers"] = list(states)
        facts["bytes_per_row"] = sum(
            kept.num_bytes(kept.init(1, spec, dtype)) for spec in states.values()
        )
    return facts


def _unlike_layers(
    kinds: Sequence[LayerKind], layer_specs: Sequence[LayerSpec], dtype: mx.Dtype
) -> list[dict[str, Any]]:
    groups: dict[tuple[int, KVSpec], tuple[CacheKind, list[int]]] = {}
    for index, kind, spec in attention_layers(kinds, layer_specs):
        groups.setdefault((id(kind), spec), (kind, []))[1].append(index)
    found = []
    for (_, spec), (kind, layers) in groups.items():
        held = kind.hold(spec, dtype, _LONG)
        per_token = [x / max(held.num_tokens, 1) for x in (held.key_bytes, held.value_bytes)]
        found.append(
            {
                "layers": layers,
                "kind": kind.name,
                "key_bits_per_element": 8 * per_token[0] / (spec.num_kv_heads * spec.key_dim),
                "value_bits_per_element": 8 * per_token[1] / (spec.num_kv_heads * spec.value_dim),
                "bytes_per_token": round(sum(per_token)),
            }
        )
    return found


def count_held(
    kinds: Sequence[LayerKind],
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    *,
    num_prompt_tokens: int,
    num_tokens: int,
) -> RowHeld:
    """Count what is there of a row, and the tokens of its prompt that are not.

    Args:
        kinds: of each layer.
        layer_specs: what each layer stores.
        dtype: of keys and values as computed.
        num_prompt_tokens: length of the prompt.
        num_tokens: prompt and generated tokens that went through the model.

    Example:
        >>> from vlmkit.cache import RotatingConfig, build_cache
        >>> spec = KVSpec(1, 4, 4)
        >>> kinds = build_cache(RotatingConfig(max_size=8, keep=2), [spec], 0, mx.float32).kinds
        >>> for n in (8, 10, 12, 99):
        ...     count_held(kinds, [spec], mx.float32, num_prompt_tokens=10, num_tokens=n)[::2]
        (8, 0)
        (8, 2)
        (8, 4)
        (8, 8)
    """
    # Most models have one or two different layers, however many they have of each.
    layers = {(id(kind), spec): kind for _, kind, spec in attention_layers(kinds, layer_specs)}
    found = [
        (kind.hold(spec, dtype, num_tokens), spec.window) for (_, spec), kind in layers.items()
    ]
    if not found:
        return RowHeld(0, 0, 0)
    return RowHeld(
        min(held.num_tokens for held, _ in found),
        max(held.num_quantized for held, _ in found),
        max(_num_dropped(held, window, num_prompt_tokens, num_tokens) for held, window in found),
    )


def _num_dropped(held: Held, window: int | None, num_prompt_tokens: int, num_tokens: int) -> int:
    seen_from = 0 if window is None else num_tokens - window
    last_from = num_tokens - (held.num_tokens - held.num_first)
    return max(min(num_prompt_tokens, last_from) - max(held.num_first, seen_from), 0)


def rows_num_bytes(
    kinds: Sequence[LayerKind],
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    *,
    num_rows: int,
    num_tokens: int,
    num_shared: int = 0,
) -> int:
    """Return the bytes that the attention layers allocate for rows, in steps of 256 slots.

    Args:
        kinds: of the layers.
        layer_specs: what each layer stores.
        dtype: the dtype of keys and values as the model computes them.
        num_rows: of the batch.
        num_tokens: that each row has seen.
        num_shared: of these, the first ones, which are one prompt's: kinds that keep every token
            hold them once.

    Example:
        >>> from vlmkit.cache.dense import DenseConfig, dense
        >>> kinds, specs = [dense(DenseConfig())], [KVSpec(2, 64, 64)]
        >>> rows_num_bytes(kinds, specs, mx.float32, num_rows=16, num_tokens=512) // 2**20
        8
        >>> rows_num_bytes(
        ...     kinds, specs, mx.float32, num_rows=16, num_tokens=512, num_shared=256
        ... ) / 2**20
        4.25
    """

    def layer_bytes(kind: CacheKind, spec: KVSpec, tokens: int) -> float:
        held = kind.hold(spec, dtype, tokens)
        steps = round_up(held.num_tokens) / max(held.num_tokens, 1)
        return (held.key_bytes + held.value_bytes) * steps

    total = 0.0
    for _, kind, spec in attention_layers(kinds, layer_specs):
        shared = num_shared if kind.keeps_all else 0
        total += num_rows * layer_bytes(kind, spec, num_tokens - shared)
        if shared:
            total += layer_bytes(kind, spec, shared)
    return round(total)


def row_held_bytes(
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
        >>> from vlmkit.cache.rotating import RotatingConfig
        >>> config = RotatingConfig(max_size=4, keep=1)
        >>> size = row_held_bytes(config, [KVSpec(2, 64, 64)], mx.float32)
        >>> size(1), size(4), size(10)
        (1024, 4096, 4096)
    """
    kept, kinds = recurrent(), kinds_of(config, layer_specs, dtype)
    states = [spec for spec in layer_specs if isinstance(spec, RecurrentSpec)]
    fixed = sum(kept.num_bytes(kept.init(1, spec, dtype)) for spec in states)

    def size(num_tokens: int) -> int:
        held = [
            k.hold(spec, dtype, num_tokens) for _, k, spec in attention_layers(kinds, layer_specs)
        ]
        return fixed + round(sum(one.key_bytes + one.value_bytes for one in held))

    return size


def attention_layers(
    kinds: Sequence[LayerKind], layer_specs: Sequence[LayerSpec]
) -> Iterable[tuple[int, CacheKind, KVSpec]]:
    """The attention layers, with their places."""
    for index, (kind, spec) in enumerate(zip(kinds, layer_specs, strict=True)):
        if isinstance(kind, CacheKind) and isinstance(spec, KVSpec):
            yield index, kind, spec

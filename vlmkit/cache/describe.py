"""What a cache's config comes to on a model's layers: bits, bytes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx

from vlmkit.cache.build import CacheConfig, kinds_of
from vlmkit.cache.held import attention_layers, hold_row
from vlmkit.cache.per_layer import PerLayerConfig, skipped_by_rules
from vlmkit.cache.recurrent import recurrent
from vlmkit.contracts.interface import (
    CacheKind,
    LayerKind,
    LayerSpec,
    PromptShape,
    RecurrentSpec,
)

_LONG = PromptShape(4096, images=((0, 2048),))  # that bits and bytes per token are said of


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
        ``bytes_per_token`` over all attention layers, as in a prompt of 4,096 tokens, half of them
        of images; tokens that are dropped count for nothing. Buffers are allocated in steps of 256
        slots.
        Where the model has them, also ``sliding_windows`` (by size, the layers that hold no more
        than that; a config that holds less narrows them) and ``recurrent_layers``, which the config
        does not change, with their ``bytes_per_row``. Where the config tells layers apart, also
        ``layers``: of each kind, which they are, and the bits and bytes of a token in one of them;
        with a kind that drops tokens at the end of a prompt also ``held_of_4096``, the tokens of
        such a prompt that are left. ``skipped_layers`` are those that the config leaves alone, with
        the reason.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> from vlmkit.cache.affine import AffineConfig
        >>> from vlmkit.contracts.interface import KVSpec
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
        held = hold_row(kind, spec, dtype, _LONG, _LONG.length)
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
    drops = any(isinstance(kind, CacheKind) and kind.finishing is not None for kind in kinds)
    if isinstance(config, PerLayerConfig) or drops:
        facts["layers"] = _unlike_layers(kinds, layer_specs, dtype)
    if skipped := list(_skipped(config, kinds, layer_specs)):
        facts["skipped_layers"] = skipped
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
    groups: dict[tuple[Any, ...], list[int]] = {}
    names = ("kind", "key_bits_per_element", "value_bits_per_element", "bytes_per_token")
    for index, kind, spec in attention_layers(kinds, layer_specs):
        held = hold_row(kind, spec, dtype, _LONG, _LONG.length)
        per_token = [x / max(held.num_tokens, 1) for x in (held.key_bytes, held.value_bytes)]
        facts = (
            kind.name,
            8 * per_token[0] / (spec.num_kv_heads * spec.key_dim),
            8 * per_token[1] / (spec.num_kv_heads * spec.value_dim),
            round(sum(per_token)),
            held.num_tokens if kind.finishing is not None else None,
            # Layers that store alike may still be of two rules.
            None if kind.in_layer is not None or kind.finishing is not None else id(kind),
            spec,
        )
        groups.setdefault(facts, []).append(index)
    return [
        {
            "layers": layers,
            **dict(zip(names, facts, strict=False)),
            **({} if facts[4] is None else {"held_of_4096": facts[4]}),
        }
        for facts, layers in groups.items()
    ]


def _skipped(
    config: CacheConfig, kinds: Sequence[LayerKind], layer_specs: Sequence[LayerSpec]
) -> Iterator[dict[str, Any]]:
    """The layers that a config is about but does nothing to, and why."""
    if isinstance(config, PerLayerConfig) and (layers := skipped_by_rules(config, layer_specs)):
        yield {"layers": layers, "reason": "recurrent: such a layer keeps a state of its own"}
    windows: dict[tuple[str, int], list[int]] = {}
    for index, kind, spec in attention_layers(kinds, layer_specs):
        if kind.settings == ("window", spec.window) and kind.name not in ("dense", "rotating"):
            assert spec.window is not None
            windows.setdefault((kind.name, spec.window), []).append(index)
    for (name, window), layers in windows.items():
        yield {
            "layers": layers,
            "reason": f"sliding window: {name} leaves its {window} tokens as computed",
        }

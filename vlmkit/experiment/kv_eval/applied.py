"""What a cache policy really does to a row: in which layers, to how many tokens, in how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.cache import hold_layers, worst_held
from vlmkit.contracts.interface import LayerKind, LayerSpec, PromptShape


class Applied(NamedTuple):
    """A policy on a row of some length."""

    layers: list[int]  # attention layers in which something is quantized or dropped
    num_layers: int  # attention layers
    quantized_tokens: int  # in the layer that has most of them
    held_tokens: int  # in the layer that has fewest
    dropped_tokens: int  # in the layer that dropped most, of those it would see
    held_bytes: int  # as stored, scales included


def applied(
    kinds: Sequence[LayerKind],
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    *,
    prompt: PromptShape,
    num_tokens: int,
) -> Applied:
    """Count what a policy does to a row.

    Args:
        kinds: of each layer.
        layer_specs: what each layer stores.
        dtype: of keys and values as computed.
        prompt: of the row.
        num_tokens: prompt and answer tokens that went through the model.

    Example:
        >>> from vlmkit.cache import RotatingConfig, build_cache
        >>> from vlmkit.contracts.interface import KVSpec
        >>> spec = KVSpec(1, 4, 4)
        >>> kinds = build_cache(RotatingConfig(max_size=8), [spec], 0, mx.float32).kinds
        >>> sizes = dict(prompt=PromptShape(10), num_tokens=12)
        >>> found = applied(kinds, [spec], mx.float32, **sizes)
        >>> found.layers, found.held_tokens, found.dropped_tokens
        ([0], 8, 4)
    """
    layers, dropped, held_bytes = [], 0, 0
    found = hold_layers(kinds, layer_specs, dtype, prompt, num_tokens)
    for index, spec, held in found:
        seen = num_tokens if spec.window is None else min(num_tokens, spec.window)
        lost = max(seen - held.num_tokens, 0)
        dropped = max(dropped, lost)
        held_bytes += held.key_bytes + held.value_bytes
        if lost or held.num_quantized:
            layers.append(index)
    worst = worst_held(found, prompt, num_tokens)
    return Applied(
        layers=layers,
        num_layers=len(found),
        quantized_tokens=worst.quantized_tokens,
        held_tokens=worst.held_tokens,
        dropped_tokens=dropped,
        held_bytes=round(held_bytes),
    )


def thresholds(policy: Mapping[str, Any], num_tokens: int) -> list[str]:
    """Name the settings of a policy that sequences of so many tokens never reach.

    Example:
        >>> thresholds({"kind": "rotating", "max_size": 4096, "keep": 4}, 130)
        ['max_size=4096']
    """
    return [f"{path}={value}" for path, value in _numbers("", policy) if value >= num_tokens]


def _numbers(path: str, value: Any) -> list[tuple[str, int]]:
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [(path, value)]
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    return [
        found
        for key, item in items
        for found in _numbers(f"{path}.{key}" if path else str(key), item)
    ]

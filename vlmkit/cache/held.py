"""What a cache holds of a row, layer by layer: tokens and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.cache.build import CacheConfig, kinds_of
from vlmkit.cache.layout import round_up
from vlmkit.cache.recurrent import recurrent
from vlmkit.contracts.interface import (
    CacheKind,
    Held,
    KVSpec,
    LayerKind,
    LayerSpec,
    PromptShape,
    RecurrentSpec,
)


class RowHeld(NamedTuple):
    """What a cache holds of one row; where layers differ, the worst of them."""

    held_tokens: int
    quantized_tokens: int
    dropped_prompt_tokens: int  # that a query of the layer would see, were they there


def hold_row(
    kind: CacheKind, spec: KVSpec, dtype: mx.Dtype, prompt: PromptShape, num_tokens: int
) -> Held:
    """Return what a layer holds of a row that has seen so many tokens, its prompt's first."""
    if kind.finishing is None or num_tokens < prompt.length:
        return kind.hold(spec, dtype, num_tokens)
    return kind.finishing.hold(spec, dtype, prompt, num_tokens)


def count_held(
    kinds: Sequence[LayerKind],
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    *,
    prompt: PromptShape,
    num_tokens: int,
) -> RowHeld:
    """Count what is there of a row, and the tokens of its prompt that are not.

    Args:
        kinds: of each layer.
        layer_specs: what each layer stores.
        dtype: of keys and values as computed.
        prompt: of the row.
        num_tokens: prompt and generated tokens that went through the model.

    Example:
        >>> from vlmkit.cache import RotatingConfig, build_cache
        >>> spec = KVSpec(1, 4, 4)
        >>> kinds = build_cache(RotatingConfig(max_size=8, keep=2), [spec], 0, mx.float32).kinds
        >>> for n in (8, 10, 12, 99):
        ...     count_held(kinds, [spec], mx.float32, prompt=PromptShape(10), num_tokens=n)[::2]
        (8, 0)
        (8, 2)
        (8, 4)
        (8, 8)
    """
    found = hold_layers(kinds, layer_specs, dtype, prompt, num_tokens)
    return worst_held(found, prompt, num_tokens)


def hold_layers(
    kinds: Sequence[LayerKind],
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    prompt: PromptShape,
    num_tokens: int,
) -> list[tuple[int, KVSpec, Held]]:
    """Return what each attention layer holds of a row, with the layer's place."""
    # Most models have one or two different layers, however many they have of each.
    known: dict[tuple[int, KVSpec], Held] = {}
    found = []
    for index, kind, spec in attention_layers(kinds, layer_specs):
        if (id(kind), spec) not in known:
            known[id(kind), spec] = hold_row(kind, spec, dtype, prompt, num_tokens)
        found.append((index, spec, known[id(kind), spec]))
    return found


def worst_held(
    found: Sequence[tuple[int, KVSpec, Held]], prompt: PromptShape, num_tokens: int
) -> RowHeld:
    """Return what is there of a row, given what each layer holds of it."""
    if not found:
        return RowHeld(0, 0, 0)
    return RowHeld(
        min(held.num_tokens for _, _, held in found),
        max(held.num_quantized for _, _, held in found),
        max(_num_dropped(held, spec.window, prompt.length, num_tokens) for _, spec, held in found),
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

    Of kinds that do something at the end of a prompt, the bytes before that.

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
) -> Callable[[PromptShape, int], int]:
    """Return what says how many bytes a row's tokens take, over all layers.

    Args:
        config: the cache's config, which works for these layers.
        layer_specs: what each layer stores.
        dtype: the dtype of keys and values as the model computes them.

    Returns:
        A function of the prompt and of the number of tokens that went through the model, those of
        the prompt included. Buffers are larger, by up to 255 tokens.

    Example:
        >>> from vlmkit.cache.rotating import RotatingConfig
        >>> config = RotatingConfig(max_size=4, keep=1)
        >>> size = row_held_bytes(config, [KVSpec(2, 64, 64)], mx.float32)
        >>> size(PromptShape(1), 1), size(PromptShape(1), 4), size(PromptShape(1), 10)
        (1024, 4096, 4096)
    """
    kept, kinds = recurrent(), kinds_of(config, layer_specs, dtype)
    states = [spec for spec in layer_specs if isinstance(spec, RecurrentSpec)]
    fixed = sum(kept.num_bytes(kept.init(1, spec, dtype)) for spec in states)

    def size(prompt: PromptShape, num_tokens: int) -> int:
        found = hold_layers(kinds, layer_specs, dtype, prompt, num_tokens)
        return fixed + round(sum(one.key_bytes + one.value_bytes for _, _, one in found))

    return size


def attention_layers(
    kinds: Sequence[LayerKind], layer_specs: Sequence[LayerSpec]
) -> Iterable[tuple[int, CacheKind, KVSpec]]:
    """The attention layers, with their places."""
    for index, (kind, spec) in enumerate(zip(kinds, layer_specs, strict=True)):
        if isinstance(kind, CacheKind) and isinstance(spec, KVSpec):
            yield index, kind, spec

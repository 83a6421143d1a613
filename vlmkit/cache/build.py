"""The cache of a whole model: which kind each layer gets under a config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, assert_never

import mlx.core as mx
from pydantic import Field

from vlmkit.backend.attention import Attention, matmul_attention
from vlmkit.backend.prefixed_attention import PrefixedAttention, prefixed_attention
from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.external import external
from vlmkit.cache.kvarn_cache import KVarNConfig, kvarn_cache
from vlmkit.cache.quantized import QuantizedConfig, quantized
from vlmkit.cache.recurrent import recurrent
from vlmkit.cache.rotating import RotatingConfig, rotating
from vlmkit.cache.shared import sharing
from vlmkit.errors import VlmkitError
from vlmkit.external import External
from vlmkit.interface import (
    Cache,
    CacheKind,
    KVSpec,
    LayerKind,
    LayerSpec,
    Model,
    RecurrentSpec,
)

CacheConfig = Annotated[
    DenseConfig | RotatingConfig | AffineConfig | QuantizedConfig | KVarNConfig | External,
    Field(discriminator="kind"),
]


def build_kind(config: CacheConfig) -> CacheKind:
    """Build the kind of cache that a config asks for; ``windowed`` of it is for sliding windows.

    Raises:
        VlmkitError: a third party's kind cannot be made.

    Example:
        >>> build_kind(RotatingConfig(max_size=8)).windowed(5).settings
        ('window', 4)
    """
    match config:
        case DenseConfig():
            return dense(config)
        case RotatingConfig():
            return rotating(config)
        case AffineConfig():
            return affine(config)
        case KVarNConfig():
            return kvarn_cache(config)
        case QuantizedConfig():
            return quantized(config)
        case External():
            return external(config)
        case _:
            assert_never(config)


def build_cache(
    config: CacheConfig,
    layer_specs: Sequence[LayerSpec],
    batch: int,
    dtype: mx.Dtype,
    *,
    attention: Attention = matmul_attention,
    prefixed: PrefixedAttention | None = prefixed_attention,
) -> Cache:
    """Build an empty cache.

    The config applies to every attention layer. A layer with a sliding window holds that window,
    stored as the config says; a recurrent layer holds its own state.

    Args:
        config: the cache's config.
        layer_specs: what each layer stores.
        batch: number of rows.
        dtype: the dtype of keys and values as the model computes them.
        attention: how queries read them; a model's ``backend.forms`` says what is fast. A third
            party's kind reads them its own way.
        prefixed: how those of rows that began as one row do; None: such rows hold copies. Kinds
            that drop tokens, and a third party's, always copy.

    Raises:
        VlmkitError: the config can't work for these layers.

    Example:
        >>> cache = build_cache(DenseConfig(), [KVSpec(2, 64, 64)] * 3, batch=1, dtype=mx.float32)
        >>> len(cache.layers), cache.lengths
        (3, (0,))
    """
    kinds = kinds_of(build_kind(config), layer_specs, dtype)
    kinds = _with_attention(kinds, attention, prefixed)
    layers: list[Any] = [
        kind.init(batch, spec, dtype)  # type: ignore[arg-type]
        for kind, spec in zip(kinds, layer_specs, strict=True)
    ]
    return Cache(kinds, tuple(layers), (0,) * batch)


def new_cache(config: CacheConfig, model: Model, batch: int) -> Cache:
    """Build an empty cache for rows of a model, read as is fast where it runs.

    Raises:
        VlmkitError: the config can't work for the model's layers.
    """
    forms = model.backend.forms
    return build_cache(
        config,
        model.layer_specs,
        batch,
        model.dtype,
        attention=forms.attention,
        prefixed=forms.prefixed,
    )


def _with_attention(
    kinds: Sequence[LayerKind], attention: Attention, prefixed: PrefixedAttention | None
) -> tuple[LayerKind, ...]:
    made: dict[int, CacheKind] = {}
    for kind in kinds:
        if isinstance(kind, CacheKind) and kind.reading is not None:
            own = kind.reading(attention)
            if prefixed is not None and kind.keeps_all:
                own = sharing(own, attention, prefixed)
            made[id(kind)] = own
    return tuple(made.get(id(kind), kind) for kind in kinds)


def kinds_of(
    kind: CacheKind, layer_specs: Sequence[LayerSpec], dtype: mx.Dtype
) -> tuple[LayerKind, ...]:
    """Return the kind of each layer: ``kind``, what it is for sliding windows, or a state's.

    Raises:
        VlmkitError: the kind can't work for a layer; names it.
    """
    windows: dict[int | None, CacheKind] = {None: kind}
    states = recurrent()
    checked = set()
    kinds: list[LayerKind] = []
    for index, spec in enumerate(layer_specs):
        if isinstance(spec, RecurrentSpec):
            kinds.append(states)
            continue
        if spec.window is not None and spec.window not in windows:
            if kind.windowed is None:
                raise VlmkitError(
                    f"cache: {kind.name} has no kind for the sliding window of {spec.window} "
                    f"tokens (layer {index}); use a cache of kind dense",
                    path=("cache",),
                )
            windows[spec.window] = kind.windowed(spec.window)
        own = windows[spec.window]
        if spec not in checked:
            checked.add(spec)
            _check(own, spec, dtype, index)
        kinds.append(own)
    return tuple(kinds)


def _check(kind: CacheKind, spec: KVSpec, dtype: mx.Dtype, index: int) -> None:
    try:
        kind.hold(spec, dtype, 1)
    except VlmkitError as error:
        raise VlmkitError(f"{error} (layer {index})", path=error.path or ("cache",)) from error

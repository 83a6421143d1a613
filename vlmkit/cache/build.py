"""The cache of a whole model: which kind each layer gets under a config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import mlx.core as mx
from pydantic import Field

from vlmkit.backend.attention import Attention, matmul_attention
from vlmkit.backend.prefixed_attention import PrefixedAttention, prefixed_attention
from vlmkit.cache.one_kind import OneKindConfig, OwnKindConfig, build_kind
from vlmkit.cache.per_layer import PerLayerConfig, per_layer
from vlmkit.cache.recurrent import recurrent
from vlmkit.cache.shared import sharing
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    KVSpec,
    LayerKind,
    LayerSpec,
    Model,
    RecurrentSpec,
)
from vlmkit.declare.external import External
from vlmkit.errors import KeyPath, VlmkitError

CacheConfig = Annotated[OwnKindConfig | PerLayerConfig | External, Field(discriminator="kind")]


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

    The config applies to every attention layer, or says which layers get what. A layer with a
    sliding window holds that window, stored as the config says; a recurrent layer holds its own
    state.

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
        >>> from vlmkit.cache.dense import DenseConfig
        >>> cache = build_cache(DenseConfig(), [KVSpec(2, 64, 64)] * 3, batch=1, dtype=mx.float32)
        >>> len(cache.layers), cache.lengths
        (3, (0,))
    """
    kinds = kinds_of(config, layer_specs, dtype)
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
    config: CacheConfig, layer_specs: Sequence[LayerSpec], dtype: mx.Dtype
) -> tuple[LayerKind, ...]:
    """Return the kind of each layer: the config's, what it is for sliding windows, or a state's.

    Raises:
        VlmkitError: a kind can't work for a layer; names it.
    """
    if not isinstance(config, PerLayerConfig):
        whole = range(len(layer_specs))
        return tuple(_kinds_on(whole, config, layer_specs, dtype, ("cache",)))
    found: dict[int, LayerKind] = {}
    for path, own, layers in per_layer(config, layer_specs):
        kinds = _kinds_on(layers, own, layer_specs, dtype, path)
        found.update(zip(layers, kinds, strict=True))
    return tuple(found[index] for index in range(len(layer_specs)))


def _kinds_on(
    layers: Sequence[int],
    config: OneKindConfig,
    layer_specs: Sequence[LayerSpec],
    dtype: mx.Dtype,
    path: KeyPath,
) -> Iterator[LayerKind]:
    """The kinds of these layers, of a config that stands at ``path``."""
    kind = build_kind(config)
    windows: dict[int | None, CacheKind] = {None: kind}
    states = recurrent()
    checked = set()
    places = [index for index in layers if _is_whole(layer_specs[index])]
    for index in layers:
        spec = layer_specs[index]
        if isinstance(spec, RecurrentSpec):
            yield states
            continue
        if spec.window is not None and spec.window not in windows:
            if kind.windowed is None:
                raise VlmkitError(
                    f"{_said(path)}: {kind.name} has no kind for the sliding window of "
                    f"{spec.window} tokens (layer {index}); use a cache of kind dense",
                    path=path,
                )
            windows[spec.window] = kind.windowed(spec.window)
        own = windows[spec.window]
        if own.in_layer is not None and spec.window is None:
            own = own.in_layer(places.index(index), len(places))
        if spec not in checked:
            checked.add(spec)
            _check(own, spec, dtype, index, path)
        yield own


def _is_whole(spec: LayerSpec) -> bool:
    """Whether queries of a layer see all tokens."""
    return isinstance(spec, KVSpec) and spec.window is None


def _check(kind: CacheKind, spec: KVSpec, dtype: mx.Dtype, index: int, path: KeyPath) -> None:
    try:
        kind.hold(spec, dtype, 1)
    except VlmkitError as error:
        message = str(error)
        if message.startswith("cache"):
            message = _said(path) + message.removeprefix("cache")
        where = (*path, *(error.path or ("cache",))[1:])
        raise VlmkitError(f"{message} (layer {index})", path=where) from error


def _said(path: KeyPath) -> str:
    return ".".join(map(str, path))

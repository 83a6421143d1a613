"""The affine-quantized KV cache: a few bits per element, a scale and a bias per group."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlmkit.cache.codec.affine import GROUP_SIZES, Bits, GroupSize, affine_codec
from vlmkit.cache.compose import cache_kind
from vlmkit.cache.layout import dense_layout
from vlmkit.cache.rotating import check_keep, rotating_layout
from vlmkit.cache.storage import Storage
from vlmkit.contracts.interface import CacheKind, KVSpec
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError


class AffineConfig(StageConfig):
    """Quantize keys and values from the first token on, in groups along the head dimension."""

    kind: Literal["affine"] = "affine"
    bits: Bits = Field(8, description="Bits per element: 2, 3, 4, 5, 6 or 8.")
    group_size: GroupSize = Field(
        64, description="Elements that share a scale: 32, 64 or 128; must divide head_dim."
    )
    key_bits: Bits | None = Field(None, description="Bits of the keys; null = bits.")
    value_bits: Bits | None = Field(None, description="Bits of the values; null = bits.")
    max_size: Int | None = Field(
        None, ge=1, description="Tokens held per row, as in a rotating cache; null = all."
    )
    keep: Int = Field(
        4, ge=0, description="First tokens never dropped; matters only with max_size."
    )

    @model_validator(mode="after")
    def _keep_fits(self) -> AffineConfig:
        if self.max_size is not None:
            check_keep(self.keep, self.max_size)
        elif "keep" in self.model_fields_set and self.keep != 4:
            raise ValueError(f"keep={self.keep} has no effect without max_size; set max_size too")
        return self


def affine(config: AffineConfig) -> CacheKind:
    """Build the quantized cache: x ~ scale * q + bias per group, q of ``bits`` bits.

    Queries see quantized keys and values only, also those of their own chunk, so the result does
    not depend on how the prompt was cut. Scale and bias take 16 bits each: bits + 32 / group_size
    per element in all.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.contracts.interface import KVSpec, Span
        >>> kind = affine(AffineConfig(bits=4, group_size=32))
        >>> state = kind.init(1, KVSpec(1, key_dim=32, value_dim=32), mx.float32)
        >>> plan = kind.plan(state, Span(starts=(0,), lengths=(1,), width=1))
        >>> ones = mx.ones((1, 1, 1, 32))
        >>> state = kind.append(state, ones, ones, plan)
        >>> kind.fetch(state, plan, mx.float32)[0].tolist() == ones.tolist()
        True

    Reference: ``mlx.core.quantize``; Liu et al. 2024 (KIVI), arXiv 2402.02750, compares the axes.
    """
    layout, last = dense_layout, None
    if config.max_size is not None:
        layout = rotating_layout(config.max_size, config.keep)
        last = config.max_size - config.keep

    def windowed(window: int) -> CacheKind:
        held = window if last is None else min(window, last)
        return affine(config.model_copy(update={"max_size": held, "keep": 0}))

    def check(spec: KVSpec) -> None:
        check_group_size(config.group_size, spec)

    return cache_kind(
        config.kind,
        layout,
        affine_storage(config),
        settings=config.model_dump_json(),
        windowed=windowed,
        check=check,
    )


def check_group_size(group_size: int, spec: KVSpec) -> None:
    """Raise VlmkitError unless groups of that size divide a layer's keys and values."""
    dims = {spec.key_dim, spec.value_dim}
    if all(dim % group_size == 0 for dim in dims):
        return
    sizes = [str(size) for size in GROUP_SIZES if all(dim % size == 0 for dim in dims)]
    remedy = f"use group_size {' or '.join(sizes)}" if sizes else "use a cache of kind dense"
    found = " and ".join(str(dim) for dim in sorted(dims))
    raise VlmkitError(
        f"cache.group_size: {group_size} does not divide head_dim {found}; {remedy}",
        path=("cache", "group_size"),
    )


def affine_storage(config: AffineConfig) -> Storage:
    """Build the codecs of keys and values."""
    return Storage(
        keys=affine_codec(config.key_bits or config.bits, config.group_size),
        values=affine_codec(config.value_bits or config.bits, config.group_size),
    )

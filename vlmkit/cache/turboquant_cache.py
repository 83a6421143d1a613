"""The TurboQuant KV cache: keys and values rotated at random and rounded to few bits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlmkit.cache.codecs.turboquant import TurboQuantConfig, check_dim, turboquant
from vlmkit.cache.compose import cache_kind
from vlmkit.cache.layout import dense_layout
from vlmkit.cache.rotating import check_keep, rotating_layout
from vlmkit.cache.storage import Storage
from vlmkit.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.interface import CacheKind, KVSpec


class TurboQuantCacheConfig(StageConfig):
    """Rotate keys and values at random and round them to the best centroids, from token 0 on."""

    kind: Literal["turboquant"] = "turboquant"
    keys: TurboQuantConfig = Field(TurboQuantConfig(), description="How keys are stored.")
    values: TurboQuantConfig = Field(TurboQuantConfig(), description="How values are stored.")
    max_size: Int | None = Field(
        None, ge=1, description="Tokens held per row, as in a rotating cache; null = all."
    )
    keep: Int = Field(
        4, ge=0, description="First tokens never dropped; matters only with max_size."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> TurboQuantCacheConfig:
        if self.values.estimator == "prod":
            raise ValueError("values: prod is for keys, which inner products read; use mse")
        if self.max_size is not None:
            check_keep(self.keep, self.max_size)
        elif "keep" in self.model_fields_set and self.keep != 4:
            raise ValueError(f"keep={self.keep} has no effect without max_size; set max_size too")
        return self


def turboquant_cache(config: TurboQuantCacheConfig) -> CacheKind:
    """Build the cache of :func:`vlmkit.cache.codecs.turboquant.turboquant`'s keys and values.

    Queries see quantized keys and values only, also those of their own chunk, so the result does
    not depend on how the prompt was cut. They are compared in the rotated frame: a step rotates
    its query and what it read, not the tokens that are stored.

    Example:
        >>> import mlx.core as mx
        >>> kind = turboquant_cache(TurboQuantCacheConfig(keys={"bits": 3.5}))
        >>> held = kind.hold(KVSpec(1, key_dim=128, value_dim=128), mx.float16, 1000)
        >>> 8 * held.key_bytes / 128_000, 8 * held.value_bytes / 128_000
        (3.75, 4.125)
    """
    layout, last = dense_layout, None
    if config.max_size is not None:
        layout = rotating_layout(config.max_size, config.keep)
        last = config.max_size - config.keep

    def windowed(window: int) -> CacheKind:
        held = window if last is None else min(window, last)
        return turboquant_cache(config.model_copy(update={"max_size": held, "keep": 0}))

    def check(spec: KVSpec) -> None:
        sides = (("keys", config.keys, spec.key_dim), ("values", config.values, spec.value_dim))
        for side, own, dim in sides:
            try:
                check_dim(own, dim)
            except VlmkitError as error:
                path = ("cache", side, *(error.path or ()))
                raise VlmkitError(f"cache.{side}.{error}", path=path) from error

    return cache_kind(
        config.kind,
        layout,
        Storage(keys=turboquant(config.keys), values=turboquant(config.values)),
        settings=config.model_dump_json(),
        windowed=windowed,
        check=check,
    )

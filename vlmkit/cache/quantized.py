"""The quantized KV cache: any codec for the keys, any for the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import mlx.core as mx
from pydantic import Field, model_validator

from vlmkit.cache.codec.affine import AffineCodecConfig
from vlmkit.cache.codec.build import CodecConfig, build_codec, check_codec
from vlmkit.cache.codec.turboquant import TurboQuantConfig
from vlmkit.cache.compose import KVState, cache_kind
from vlmkit.cache.finishing import Finished, Method, Noted, finishing_kind, refill
from vlmkit.cache.layout import dense_layout
from vlmkit.cache.residual import Window, residual_kind
from vlmkit.cache.rotating import check_keep, rotating_layout, windowed
from vlmkit.cache.storage import Storage
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, PromptShape
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError


class QuantizedConfig(StageConfig):
    """Store keys and values each by a codec of its own, all tokens or all but the recent ones."""

    kind: Literal["quantized"] = "quantized"
    keys: CodecConfig = Field(AffineCodecConfig(), description="How keys are stored: a codec.")
    values: CodecConfig = Field(AffineCodecConfig(), description="How values are stored: a codec.")
    recent: Int = Field(
        0, ge=0, description="Last tokens, its own included, that a query sees as computed."
    )
    start: Annotated[Int, Field(ge=0)] | Literal["after_prefill"] = Field(
        0,
        description="Queries before this token see every token as computed; 0 = none. "
        "after_prefill: those of the prompt do, and the codecs store nothing before its end.",
    )
    max_size: Int | None = Field(
        None, ge=1, description="Tokens held per row, as in a rotating cache; null = all."
    )
    keep: Int = Field(
        4, ge=0, description="First tokens never dropped; matters only with max_size."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> QuantizedConfig:
        if isinstance(self.values, TurboQuantConfig) and self.values.estimator == "prod":
            raise ValueError("values: prod is for keys, which inner products read; use mse")
        if self.max_size is not None:
            check_keep(self.keep, self.max_size)
            self._check_held(self.max_size)
        elif "keep" in self.model_fields_set and self.keep != 4:
            raise ValueError(f"keep={self.keep} has no effect without max_size; set max_size too")
        return self

    def _check_held(self, max_size: int) -> None:
        if self.recent > max_size - self.keep:
            raise ValueError(
                f"recent={self.recent} is more than the last {max_size - self.keep} tokens that "
                f"max_size={max_size} and keep={self.keep} hold; use {max_size - self.keep} or less"
            )
        if self.start == "after_prefill":
            raise ValueError(
                "start: after_prefill holds the whole prompt until its end, so it cannot go with "
                f"max_size={max_size}; use a number, or leave max_size out"
            )
        if self.start > max_size:
            raise ValueError(
                f"start={self.start} is more than the max_size={max_size} tokens that are held; "
                f"use {max_size} or less"
            )


def quantized(config: QuantizedConfig) -> CacheKind:
    """Build the cache of one codec for the keys and one for the values.

    Query i sees token j as stored iff i >= start and j <= i - recent, and any other token as
    computed. So the result does not depend on how the prompt was cut. Tokens seen as computed are
    held as computed, beside what is stored of all. With ``start: after_prefill`` N is the length of
    the prompt, whatever it is, and layers with a sliding window keep that as computed.

    Example:
        >>> import mlx.core as mx
        >>> config = QuantizedConfig(keys={"kind": "mxfp8"}, values={"kind": "nvfp4"})
        >>> held = quantized(config).hold(KVSpec(1, 128, 128), mx.float16, 1000)
        >>> 8 * held.key_bytes / 128_000, 8 * held.value_bytes / 128_000
        (8.25, 4.5)
    """
    layout, last = dense_layout, None
    if config.max_size is not None:
        layout = rotating_layout(config.max_size, config.keep)
        last = config.max_size - config.keep

    def in_window(window: int) -> CacheKind:
        held = window if last is None else min(window, last)
        own = {"max_size": held, "keep": 0, "recent": min(config.recent, held)}
        return quantized(config.model_copy(update=own))

    def check(spec: KVSpec) -> None:
        check_side("keys", config.keys, spec.key_dim)
        check_side("values", config.values, spec.value_dim)

    if config.start == "after_prefill":
        return _after_prefill(config, check)
    storage = Storage(keys=build_codec(config.keys), values=build_codec(config.values))
    settings = config.model_dump_json()
    if config.recent or config.start != 0:
        window = Window(config.recent, config.start, config.max_size, config.keep)
        return residual_kind(
            config.kind, storage, window, settings=settings, windowed=in_window, check=check
        )
    return cache_kind(
        config.kind, layout, storage, settings=settings, windowed=in_window, check=check
    )


def _after_prefill(config: QuantizedConfig, check: Callable[[KVSpec], None]) -> CacheKind:
    """Build the cache that holds a prompt as computed until its end."""
    after = quantized(config.model_copy(update={"start": 0}))

    def hold(spec: KVSpec, dtype: mx.Dtype, prompt: PromptShape, seen: int) -> Held:
        return after.hold(spec, dtype, seen)

    def finish(
        after: CacheKind, full: KVState, noted: Noted, prompts: Sequence[PromptShape]
    ) -> Finished:
        counts = [prompt.length for prompt in prompts]
        stored = refill(after, full.keys[0], full.values[0], counts)
        return Finished(stored, (0,) * len(counts))

    return finishing_kind(
        Method(
            name=config.kind,
            settings=config.model_dump_json(),
            after=after,
            finish=finish,
            hold=hold,
            windowed=partial(windowed, config.kind),
            check=check,
        )
    )


def check_side(side: str, codec: CodecConfig, dim: int, *within: str) -> None:
    """Raise VlmkitError, its path the key, unless a codec of one side works for that dim."""
    try:
        check_codec(codec, dim)
    except VlmkitError as error:
        place = (*within, side)
        path = ("cache", *place, *(error.path or ()))
        raise VlmkitError(f"cache.{'.'.join(place)}.{error}", path=path) from error

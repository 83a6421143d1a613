"""The KIVI KV cache: keys per channel, values per token, and what is recent as computed."""

from __future__ import annotations

from functools import partial
from typing import Literal

import mlx.core as mx
from pydantic import Field, model_validator

from vlmkit.cache.blocks import block_kind
from vlmkit.cache.codec.affine import Bits, GroupSize, check_affine_dim
from vlmkit.cache.codec.kivi import kivi_codec
from vlmkit.cache.rotating import windowed
from vlmkit.cache.storage import Storage
from vlmkit.contracts.interface import CacheKind, Held, KVSpec
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError


class KiviConfig(StageConfig):
    """Round keys per channel over groups of tokens, values per token (arXiv 2402.02750)."""

    kind: Literal["kivi"] = "kivi"
    key_bits: Bits = Field(2, description="Bits per element of the keys: 2, 3, 4, 5, 6 or 8.")
    value_bits: Bits = Field(2, description="Bits per element of the values: 2, 3, 4, 5, 6 or 8.")
    group_size: GroupSize = Field(
        32, description="Tokens (keys) or channels (values) that share a scale: 32, 64 or 128."
    )
    residual: Int = Field(
        128, ge=32, description="Tokens held as computed before all of them are stored."
    )

    @model_validator(mode="after")
    def _groups_fit(self) -> KiviConfig:
        if self.residual % self.group_size:
            raise ValueError(
                f"residual={self.residual} is no multiple of group_size={self.group_size}; "
                f"use {-(-self.residual // self.group_size) * self.group_size}"
            )
        return self


def kivi(config: KiviConfig) -> CacheKind:
    """Build the cache: whole blocks of ``residual`` tokens stored, the rest as computed.

    A query sees its own block as computed and those before as stored, so the result does not depend
    on how the prompt was cut. The authors store values one by one as they leave a window of
    ``residual`` tokens; here they are stored with the keys of their block. Layers with a sliding
    window hold it as computed.

    Example:
        >>> held = kivi(KiviConfig()).hold(KVSpec(1, key_dim=128, value_dim=128), mx.float16, 1000)
        >>> held.num_quantized, held.key_bytes, held.value_bytes
        (896, 69632, 69632)

    Reference: Liu et al. 2024 (KIVI), arXiv 2402.02750.
    """
    kind = block_kind(
        config.kind,
        Storage(
            keys=kivi_codec(config.key_bits, config.group_size, along="tokens"),
            values=kivi_codec(config.value_bits, config.group_size, along="channels"),
        ),
        config.residual,
        settings=config.model_dump_json(),
        windowed=partial(windowed, config.kind),
    )

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        try:
            check_affine_dim(config.group_size, spec.value_dim)
        except VlmkitError as error:
            raise VlmkitError(f"cache.{error}", path=("cache", *(error.path or ()))) from error
        return kind.hold(spec, dtype, seen)

    return kind._replace(hold=hold)

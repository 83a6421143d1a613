"""The KVarN KV cache: blocks of tokens of even variance, rounded to few bits."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from vlmkit.cache.blocks import block_kind
from vlmkit.cache.codec.kvarn import kvarn
from vlmkit.cache.rotating import windowed
from vlmkit.cache.storage import Storage
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.configbase import Int, StageConfig


class KVarNConfig(StageConfig):
    """Store whole blocks of tokens, rotated and of even variance (arXiv 2606.03458)."""

    kind: Literal["kvarn"] = "kvarn"
    key_bits: Int = Field(4, ge=1, le=8, description="Bits per element of the keys, 1 to 8.")
    value_bits: Int = Field(2, ge=1, le=8, description="Bits per element of the values, 1 to 8.")
    block_size: Int = Field(
        128, ge=8, le=1024, description="Tokens per block; a block is stored once it is whole."
    )


def kvarn_cache(config: KVarNConfig) -> CacheKind:
    """Build the cache of :func:`vlmkit.cache.codec.kvarn.kvarn`'s blocks.

    A query sees its own block as computed and those before as stored, so the result does not depend
    on how the prompt was cut. Keys share a step per channel, values one per token. Layers with a
    sliding window hold it as computed. The authors' kernels also keep a few first tokens as
    computed; this does not.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.contracts.interface import KVSpec
        >>> kind = kvarn_cache(KVarNConfig())
        >>> held = kind.hold(KVSpec(1, key_dim=128, value_dim=128), mx.float16, 1000)
        >>> held.num_quantized, held.key_bytes, held.value_bytes
        (896, 89344, 60672)
    """
    return block_kind(
        config.kind,
        Storage(
            keys=kvarn(config.key_bits, along="tokens"),
            values=kvarn(config.value_bits, along="channels"),
        ),
        config.block_size,
        settings=config.model_dump_json(),
        windowed=partial(windowed, config.kind),
    )

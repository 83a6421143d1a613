"""The kind of cache that a config asks for."""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.external import external
from vlmkit.cache.kivi import KiviConfig, kivi
from vlmkit.cache.kvarn_cache import KVarNConfig, kvarn_cache
from vlmkit.cache.quantized import QuantizedConfig, quantized
from vlmkit.cache.rotating import RotatingConfig, rotating
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.external import External

OneKindConfig = Annotated[
    DenseConfig
    | RotatingConfig
    | AffineConfig
    | QuantizedConfig
    | KVarNConfig
    | KiviConfig
    | External,
    Field(discriminator="kind"),
]


def build_kind(config: OneKindConfig) -> CacheKind:
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
        case KiviConfig():
            return kivi(config)
        case QuantizedConfig():
            return quantized(config)
        case External():
            return external(config)
        case _:
            assert_never(config)

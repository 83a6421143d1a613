"""The kind of cache that a config asks for."""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.eviction.h2o import H2OConfig, h2o
from vlmkit.cache.eviction.keydiff import KeyDiffConfig, keydiff
from vlmkit.cache.eviction.knorm import KnormConfig, knorm
from vlmkit.cache.eviction.pyramidkv import PyramidKVConfig, pyramidkv
from vlmkit.cache.eviction.random_tokens import RandomConfig, random_tokens
from vlmkit.cache.eviction.snapkv import SnapKVConfig, snapkv
from vlmkit.cache.eviction.tova import TOVAConfig, tova
from vlmkit.cache.external import external
from vlmkit.cache.kivi import KiviConfig, kivi
from vlmkit.cache.kvarn_cache import KVarNConfig, kvarn_cache
from vlmkit.cache.modality import ModalityConfig, modality
from vlmkit.cache.quantized import QuantizedConfig, quantized
from vlmkit.cache.rotating import RotatingConfig, rotating
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.external import External

EvictionKindConfig = (
    SnapKVConfig
    | PyramidKVConfig
    | H2OConfig
    | TOVAConfig
    | KnormConfig
    | KeyDiffConfig
    | RandomConfig
)

OwnKindConfig = (
    DenseConfig
    | RotatingConfig
    | AffineConfig
    | QuantizedConfig
    | KVarNConfig
    | KiviConfig
    | ModalityConfig
    | EvictionKindConfig
)
OneKindConfig = Annotated[OwnKindConfig | External, Field(discriminator="kind")]


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
        case ModalityConfig():
            return modality(config)
        case External():
            return external(config)
        case _:
            return build_eviction(config)


def build_eviction(config: EvictionKindConfig) -> CacheKind:
    """Build the kind of an eviction method.

    Example:
        >>> build_eviction(KnormConfig(ratio=0.5)).name
        'knorm'
    """
    match config:
        case SnapKVConfig():
            return snapkv(config)
        case PyramidKVConfig():
            return pyramidkv(config)
        case H2OConfig():
            return h2o(config)
        case TOVAConfig():
            return tova(config)
        case KnormConfig():
            return knorm(config)
        case KeyDiffConfig():
            return keydiff(config)
        case RandomConfig():
            return random_tokens(config)
        case _:
            assert_never(config)

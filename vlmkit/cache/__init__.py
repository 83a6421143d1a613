"""KV caches as values: dense, windows, quantized by any codecs, tokens dropped, your own."""

from __future__ import annotations

from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.build import CacheConfig, build_cache, new_cache
from vlmkit.cache.codec.external import external_codec
from vlmkit.cache.compose import cache_kind
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.describe import describe_cache
from vlmkit.cache.eviction.h2o import H2OConfig
from vlmkit.cache.eviction.keydiff import KeyDiffConfig
from vlmkit.cache.eviction.knorm import KnormConfig
from vlmkit.cache.eviction.pyramidkv import PyramidKVConfig
from vlmkit.cache.eviction.random_tokens import RandomConfig
from vlmkit.cache.eviction.snapkv import SnapKVConfig
from vlmkit.cache.eviction.tova import TOVAConfig
from vlmkit.cache.external import external
from vlmkit.cache.held import (
    RowHeld,
    count_held,
    hold_layers,
    hold_row,
    row_held_bytes,
    rows_num_bytes,
    worst_held,
)
from vlmkit.cache.kivi import KiviConfig, kivi
from vlmkit.cache.kvarn_cache import KVarNConfig, kvarn_cache
from vlmkit.cache.layout import Layout, dense_layout
from vlmkit.cache.modality import ModalityConfig
from vlmkit.cache.one_kind import OneKindConfig, build_kind
from vlmkit.cache.per_layer import LayerRule, PerLayerConfig, per_layer
from vlmkit.cache.quantized import QuantizedConfig, quantized
from vlmkit.cache.rotating import RotatingConfig, rotating, rotating_layout, windowed_layout
from vlmkit.cache.rows import (
    cache_num_bytes,
    finish_rows,
    finishes,
    join_rows,
    select_rows,
    trim_rows,
)
from vlmkit.cache.storage import Codec, Frame, Storage, plain
from vlmkit.declare.external import External

__all__ = [
    "AffineConfig",
    "CacheConfig",
    "Codec",
    "DenseConfig",
    "External",
    "Frame",
    "H2OConfig",
    "KVarNConfig",
    "KeyDiffConfig",
    "KiviConfig",
    "KnormConfig",
    "LayerRule",
    "Layout",
    "ModalityConfig",
    "OneKindConfig",
    "PerLayerConfig",
    "PyramidKVConfig",
    "QuantizedConfig",
    "RandomConfig",
    "RotatingConfig",
    "RowHeld",
    "SnapKVConfig",
    "Storage",
    "TOVAConfig",
    "affine",
    "build_cache",
    "build_kind",
    "cache_kind",
    "cache_num_bytes",
    "count_held",
    "dense",
    "dense_layout",
    "describe_cache",
    "external",
    "external_codec",
    "finish_rows",
    "finishes",
    "hold_layers",
    "hold_row",
    "join_rows",
    "kivi",
    "kvarn_cache",
    "new_cache",
    "per_layer",
    "plain",
    "quantized",
    "rotating",
    "rotating_layout",
    "row_held_bytes",
    "rows_num_bytes",
    "select_rows",
    "trim_rows",
    "windowed_layout",
    "worst_held",
]

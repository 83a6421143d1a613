"""KV caches as values: dense, rotating, affine-quantized, any two codecs, KVarN, your own."""

from __future__ import annotations

from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.build import CacheConfig, build_cache, new_cache
from vlmkit.cache.compose import cache_kind
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.describe import (
    RowHeld,
    attention_layers,
    count_held,
    describe_cache,
    row_held_bytes,
    rows_num_bytes,
)
from vlmkit.cache.external import external
from vlmkit.cache.kivi import KiviConfig, kivi
from vlmkit.cache.kvarn_cache import KVarNConfig, kvarn_cache
from vlmkit.cache.layout import Layout, dense_layout
from vlmkit.cache.one_kind import OneKindConfig, build_kind
from vlmkit.cache.per_layer import LayerRule, PerLayerConfig, per_layer
from vlmkit.cache.quantized import QuantizedConfig, quantized
from vlmkit.cache.rotating import RotatingConfig, rotating, rotating_layout, windowed_layout
from vlmkit.cache.rows import cache_num_bytes, join_rows, select_rows, trim_rows
from vlmkit.cache.storage import Codec, Frame, Storage, plain
from vlmkit.declare.external import External

__all__ = [
    "AffineConfig",
    "CacheConfig",
    "Codec",
    "DenseConfig",
    "External",
    "Frame",
    "KVarNConfig",
    "KiviConfig",
    "LayerRule",
    "Layout",
    "OneKindConfig",
    "PerLayerConfig",
    "QuantizedConfig",
    "RotatingConfig",
    "RowHeld",
    "Storage",
    "affine",
    "attention_layers",
    "build_cache",
    "build_kind",
    "cache_kind",
    "cache_num_bytes",
    "count_held",
    "dense",
    "dense_layout",
    "describe_cache",
    "external",
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
]

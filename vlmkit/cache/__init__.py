"""KV caches as values: dense, rotating, affine-quantized."""

from __future__ import annotations

from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.build import CacheConfig, build_cache, describe_cache, num_dropped, row_bytes
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.rotating import RotatingConfig, rotating
from vlmkit.cache.rows import cache_num_bytes, join_rows, select_rows, trim_rows

__all__ = [
    "AffineConfig",
    "CacheConfig",
    "DenseConfig",
    "RotatingConfig",
    "affine",
    "build_cache",
    "cache_num_bytes",
    "dense",
    "describe_cache",
    "join_rows",
    "num_dropped",
    "rotating",
    "row_bytes",
    "select_rows",
    "trim_rows",
]

"""KV caches as values: dense, rotating, affine-quantized."""

from __future__ import annotations

from vlmkit.cache.affine import AffineConfig, affine
from vlmkit.cache.build import (
    CacheConfig,
    build_cache,
    cache_num_bytes,
    describe_cache,
    join_rows,
    num_dropped,
    select_rows,
)
from vlmkit.cache.dense import DenseConfig, dense
from vlmkit.cache.rotating import RotatingConfig, rotating

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
    "select_rows",
]

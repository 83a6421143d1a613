"""KV caches as values: dense, rotating, affine-quantized."""

from __future__ import annotations

from vlmkit.cache.build import (
    CacheConfig,
    build_cache,
    cache_num_bytes,
    join_rows,
    select_rows,
)
from vlmkit.cache.dense import DenseConfig, dense

__all__ = [
    "CacheConfig",
    "DenseConfig",
    "build_cache",
    "cache_num_bytes",
    "dense",
    "join_rows",
    "select_rows",
]

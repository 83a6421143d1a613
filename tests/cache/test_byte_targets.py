"""What a long prompt costs, counted from the arrays of its tokens, against float16."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from pydantic import TypeAdapter

from vlmkit.bench.running import filled
from vlmkit.cache import CacheConfig, DenseConfig, build_cache, cache_num_bytes
from vlmkit.contracts.interface import KVSpec

SPEC = KVSpec(2, 128, 128, num_heads=4)
NUM_TOKENS = 8192
TURBO = {"kind": "turboquant", "bits": 3.5}
CONFIGS: TypeAdapter[CacheConfig] = TypeAdapter(CacheConfig)


def num_bytes(config: CacheConfig) -> int:
    cache = build_cache(config, [SPEC], 1, mx.float16)
    return cache_num_bytes(filled(cache, (SPEC,), NUM_TOKENS, mx.float16))


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        ({"kind": "affine", "bits": 4, "group_size": 64}, 0.29),
        ({"kind": "quantized", "keys": TURBO, "values": TURBO}, 0.25),
        ({"kind": "snapkv", "ratio": 0.25}, 0.27),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else str(value),
)
def test_bytes_against_float16(policy: dict[str, Any], most: float) -> None:
    dense = num_bytes(DenseConfig())
    assert dense == 2 * 2 * NUM_TOKENS * 128 * 2 + 4  # keys, values, the end of the row
    assert num_bytes(CONFIGS.validate_python(policy)) <= most * dense

"""What a cache that differs by layer comes to, layer by layer."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.cache import DenseConfig, PerLayerConfig, describe_cache
from vlmkit.contracts.interface import KVSpec, LayerSpec, RecurrentSpec, StateArray

FULL, SLIDING = KVSpec(2, 32, 32), KVSpec(2, 32, 32, window=5)
STATE = RecurrentSpec((StateArray("conv", (3, 8)),))
SPECS: list[LayerSpec] = [FULL, SLIDING, STATE, FULL, SLIDING, FULL]


def test_bits_and_bytes_are_said_of_each_layer() -> None:
    own = {"kind": "quantized", "keys": {"kind": "mxfp4"}, "values": {"kind": "plain"}}
    config = PerLayerConfig(rules=[{"layers": [0, 3], "cache": own}])
    facts = describe_cache(config, SPECS, mx.float16)
    said = [tuple(one.values()) for one in facts["layers"]]
    assert said == [
        ([0, 3], "quantized", 4.25, 16, 2 * 32 * (4.25 + 16) / 8),
        ([1, 4], "dense", 16, 16, 256),
        ([5], "dense", 16, 16, 256),
    ]
    total = sum(len(one["layers"]) * one["bytes_per_token"] for one in facts["layers"])
    assert facts["bytes_per_token"] == total
    assert facts["recurrent_layers"] == [2]
    assert "layers" not in describe_cache(DenseConfig(), SPECS, mx.float16)

"""What a cache config accepts, refuses and reports."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from pydantic import TypeAdapter, ValidationError

from tests.cache.kinds import CONFIGS, FINISHING, SHAPE
from vlmkit.cache import (
    AffineConfig,
    CacheConfig,
    DenseConfig,
    RotatingConfig,
    build_cache,
    cache_num_bytes,
    describe_cache,
    join_rows,
    select_rows,
)
from vlmkit.contracts.interface import Cache, KVSpec, Span
from vlmkit.errors import VlmkitError

# Kinds of which every token takes one slot; the others count their bytes in tests of their own.
IN_FORMS = ("kvarn", "kivi", "recent", "start", *FINISHING)
IN_SLOTS = [name for name in CONFIGS if not name.startswith(IN_FORMS)]

ADAPTER: TypeAdapter[Any] = TypeAdapter(CacheConfig)

REFUSED = [
    ({"kind": "ring"}, "'dense', 'rotating', 'affine'"),
    ({"kind": "dense", "bits": 8}, "bits"),
    ({"kind": "rotating"}, "max_size"),
    ({"kind": "rotating", "max_size": 0}, "greater than or equal to 1"),
    ({"kind": "rotating", "max_size": True}, "needs a number"),
    ({"kind": "rotating", "max_size": 4}, "keep must be less than max_size"),
    ({"kind": "rotating", "max_size": 8, "keep": -1}, "greater than or equal to 0"),
    ({"kind": "affine", "bits": 7}, "use one of 2, 3, 4, 5, 6, 8"),
    ({"kind": "affine", "key_bits": 16}, "use one of 2, 3, 4, 5, 6, 8"),
    ({"kind": "affine", "value_bits": 1}, "use one of 2, 3, 4, 5, 6, 8"),
    ({"kind": "affine", "group_size": 48}, "use one of 32, 64, 128"),
    ({"kind": "affine", "max_size": 3}, "keep must be less than max_size"),
    ({"kind": "affine", "keep": 8}, "has no effect without max_size"),
    ({"kind": "quantized", "recent": 9, "max_size": 12}, "recent=9 is more than the last 8"),
    ({"kind": "quantized", "start": 13, "max_size": 12}, "start=13 is more than the max_size=12"),
    ({"kind": "quantized", "keep": 8}, "has no effect without max_size"),
    ({"kind": "quantized", "keys": {"kind": "int8"}}, "'plain', 'affine', 'mxfp4'"),
    ({"kind": "quantized", "keys": {"kind": "hadamard", "codec": {"kind": "plain"}}}, "'affine'"),
    ({"kind": "quantized", "values": {"kind": "turboquant", "estimator": "prod"}}, "is for keys"),
    ({"kind": "quantized", "keys": {"kind": "turboquant", "bits": 2.25}}, "in steps of 0.5"),
    ({"kind": "kivi", "residual": 48}, "48 is no multiple of group_size=32; use 64"),
    ({"kind": "kvarn", "block_size": 4}, "greater than or equal to 8"),
    ({"kind": "kvarn", "key_bits": 9}, "less than or equal to 8"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_bad_configs_say_what_would_work(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_survive_a_round_trip(name: str) -> None:
    assert ADAPTER.validate_json(CONFIGS[name].model_dump_json()) == CONFIGS[name]


@pytest.mark.parametrize(
    ("head_dim", "group_size", "remedy"),
    [(96, 64, "use group_size 32 "), (64, 128, "group_size 32 or 64"), (80, 32, "kind dense")],
)
def test_group_size_must_divide_head_dim(head_dim: int, group_size: int, remedy: str) -> None:
    shapes = [KVSpec(2, 128, 128), KVSpec(2, head_dim, head_dim)]
    config = AffineConfig(group_size=group_size)
    with pytest.raises(
        VlmkitError, match=rf"group_size: {group_size} .* {head_dim}; .* \(layer 1\)"
    ):
        build_cache(config, shapes, 1, mx.float32)
    with pytest.raises(VlmkitError, match=remedy):
        describe_cache(config, shapes, mx.float32)


@pytest.mark.parametrize(
    ("codec", "head_dim", "message"),
    [
        ({"kind": "affine", "group_size": 64}, 96, "group_size: 64 .* 96; use group_size 32"),
        ({"kind": "mxfp4"}, 48, "kind: mxfp4 .* head_dim 48; use nvfp4"),
        ({"kind": "nvfp4"}, 40, "kind: nvfp4 .* head_dim 40; use per_token_head"),
        ({"kind": "per_token_head", "dtype": "int4"}, 31, "dtype: int4 needs an even head_dim"),
        ({"kind": "hadamard", "codec": {"kind": "mxfp4"}}, 96, "kind: hadamard needs .* got 96"),
        ({"kind": "hadamard", "codec": {"kind": "affine"}}, 32, "codec.group_size: 64 does not"),
        ({"kind": "turboquant", "bits": 2.5}, 24, "bits: 2.5 needs"),
    ],
)
@pytest.mark.parametrize("side", ["keys", "values"])
def test_a_codec_that_does_not_fit_head_dim_is_named(
    side: str, codec: dict[str, Any], head_dim: int, message: str
) -> None:
    config = ADAPTER.validate_python(
        {
            "kind": "quantized",
            side: codec,
            **{other: {"kind": "plain"} for other in ("keys", "values") if other != side},
        }
    )
    with pytest.raises(VlmkitError, match=rf"^cache\.{side}\.{message}.* \(layer 1\)") as caught:
        build_cache(config, [KVSpec(2, 128, 128), KVSpec(2, head_dim, head_dim)], 1, mx.float32)
    assert caught.value.path is not None
    assert caught.value.path[:2] == ("cache", side)


@pytest.mark.parametrize(
    ("config", "dtype", "bits"),
    [
        (DenseConfig(), mx.float32, (32, 32)),
        (RotatingConfig(max_size=8), mx.bfloat16, (16, 16)),
        (AffineConfig(bits=2, group_size=64), mx.float32, (2.5, 2.5)),
        (AffineConfig(bits=3, group_size=64), mx.float16, (3.5, 3.5)),
        (AffineConfig(bits=4, group_size=64), mx.bfloat16, (4.5, 4.5)),
        (AffineConfig(bits=8, group_size=64), mx.float32, (8.5, 8.5)),
        (AffineConfig(key_bits=8, value_bits=4, group_size=32), mx.float32, (9.0, 5.0)),
        (AffineConfig(bits=6, value_bits=5, group_size=128), mx.float32, (6.25, 5.25)),
    ],
)
def test_described_bits_are_those_of_the_arrays(
    config: Any, dtype: mx.Dtype, bits: tuple[float, float]
) -> None:
    shapes = [KVSpec(2, 128, 128), KVSpec(4, 128, 128)]
    facts = describe_cache(config, shapes, dtype)
    assert (facts["key_bits_per_element"], facts["value_bits_per_element"]) == bits
    assert facts["num_layers"] == 2
    assert facts["bytes_per_token"] == 6 * 128 * sum(bits) / 8
    assert facts["kind"] == config.kind


@pytest.mark.parametrize("name", IN_SLOTS)
def test_bytes_are_counted_from_the_arrays(name: str) -> None:
    config, dtype = CONFIGS[name], mx.float16
    cache = _filled(build_cache(config, [SHAPE, SHAPE], 3, dtype), 1)
    slots = cache.layers[0].keys[0].shape[2]
    facts = describe_cache(config, [SHAPE, SHAPE], dtype)
    int32_per_row_and_layer = 3 * 2 * 4
    assert cache_num_bytes(cache) == 3 * slots * facts["bytes_per_token"] + int32_per_row_and_layer


def test_rows_move_between_caches_with_their_lengths() -> None:
    shapes = [SHAPE, KVSpec(1, 64, 64)]
    first = _filled(build_cache(DenseConfig(), shapes, 2, mx.float32), 3)
    second = _filled(build_cache(DenseConfig(), shapes, 1, mx.float32), 260)
    joined = join_rows([first, second])
    assert joined.lengths == (3, 3, 260)
    assert [layer.keys[0].shape for layer in joined.layers] == [(3, 2, 512, 32), (3, 1, 512, 64)]
    picked = select_rows(joined, [2, 0, 0])
    assert picked.lengths == (260, 3, 3)
    assert picked.layers[1].ends.tolist() == [260, 3, 3]


def test_rows_of_different_kinds_do_not_join() -> None:
    caches = [
        build_cache(config, [SHAPE], 1, mx.float32)
        for config in (DenseConfig(), RotatingConfig(max_size=8))
    ]
    with pytest.raises(VlmkitError, match=r"dense.*rotating"):
        join_rows(caches)


def _filled(cache: Cache, count: int) -> Cache:
    batch = len(cache.lengths)
    layers = []
    for kind, state in zip(cache.kinds, cache.layers, strict=True):
        plan = kind.plan(state, Span((0,) * batch, (count,) * batch, count))
        heads, width = state.keys[0].shape[1], 64 if state.keys[0].shape[1] == 1 else 32
        ones = mx.ones((batch, heads, count, width), mx.float16)
        layers.append(kind.append(state, ones, ones, plan))
    return Cache(cache.kinds, tuple(layers), (count,) * batch)

"""Caches of different kinds in different layers: which layers a rule is about, and its errors."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from pydantic import TypeAdapter, ValidationError

from vlmkit.cache import CacheConfig, build_cache, describe_cache
from vlmkit.contracts.interface import KVSpec, RecurrentSpec, StateArray
from vlmkit.errors import VlmkitError

ADAPTER: TypeAdapter[Any] = TypeAdapter(CacheConfig)
FULL = KVSpec(2, 64, 64)
SLIDING = KVSpec(2, 64, 64, window=9)
STATE = RecurrentSpec((StateArray("state", (2,)),))
SPECS = [STATE, FULL, SLIDING, FULL, STATE, SLIDING]
AFFINE = {"kind": "affine", "bits": 4}


def _config(*rules: tuple[Any, dict[str, Any]], **more: Any) -> Any:
    listed = [{"layers": layers, "cache": cache} for layers, cache in rules]
    return ADAPTER.validate_python({"kind": "per_layer", "rules": listed, **more})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (3, [3]),
        ("1-3", [1, 2, 3]),
        ("0-4", [1, 2, 3]),
        ([1, 5], [1, 5]),
        ([1, "1-2"], [1, 2]),
        ("first 2", [1, 2]),
        ("last 1", [5]),
        ("sliding", [2, 5]),
        (["first 1", "last 1"], [1, 5]),
        ("all", [1, 2, 3, 5]),
    ],
)
def test_a_rule_is_about_the_layers_it_names(layers: Any, expected: list[int]) -> None:
    cache = build_cache(_config((layers, AFFINE)), SPECS, 1, mx.float32)
    assert [i for i, kind in enumerate(cache.kinds) if kind.name == "affine"] == expected
    others = [i for i in range(6) if i not in expected]
    assert all(cache.kinds[i].name == ("recurrent" if i in (0, 4) else "dense") for i in others)


def test_every_layer_holds_what_its_rule_says() -> None:
    config = _config((1, AFFINE), (2, {"kind": "rotating", "max_size": 5, "keep": 1}))
    kinds = build_cache(config, SPECS, 1, mx.float32).kinds
    held = [kinds[i].hold(SPECS[i], mx.float32, 20) for i in (1, 2, 3, 5)]
    assert [one.num_tokens for one in held] == [20, 4, 20, 9]
    assert [one.num_quantized for one in held] == [20, 0, 0, 0]
    bits = describe_cache(config, [FULL, FULL, FULL], mx.float16)["key_bits_per_element"]
    assert bits == pytest.approx((16 + 4.5 + 16) / 3, abs=0.01)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            [("first 2", AFFINE), ("2-3", AFFINE)],
            r"rules\.1\.layers: layer 2 is in cache\.rules\.0",
        ),
        ([(0, AFFINE)], r"rules\.0\.layers: 0 is about no attention layer .* layers 1, 2, 3, 5 "),
        ([("4-4", AFFINE)], r"rules\.0\.layers: '4-4' is about"),
        ([("5-6", AFFINE)], r"rules\.0\.layers: '5-6' is about"),
        ([("3-1", AFFINE)], r"rules\.0\.layers: '3-1' is about"),
        ([(1, AFFINE), (9, AFFINE)], r"rules\.1\.layers: 9 is about"),
        ([("last 5", AFFINE)], r"rules\.0\.layers: 'last 5' is about"),
        (
            [(3, {"kind": "affine", "group_size": 128})],
            r"rules\.0\.cache\.group_size: 128 does not divide head_dim 64; .* \(layer 3\)",
        ),
    ],
)
def test_rules_that_cannot_work_are_named(rules: list[Any], said: str) -> None:
    with pytest.raises(VlmkitError, match=rf"^cache\.{said}") as caught:
        build_cache(_config(*rules), SPECS, 1, mx.float32)
    assert caught.value.path is not None
    assert caught.value.path[:2] == ("cache", "rules")


def test_recurrent_layers_in_a_range_are_skipped_and_said_to_be() -> None:
    facts = describe_cache(_config(("0-3", AFFINE)), SPECS, mx.float32)
    reason = "recurrent: such a layer keeps a state of its own"
    assert facts["skipped_layers"] == [{"layers": [0], "reason": reason}]
    assert "skipped_layers" not in describe_cache(_config(("1-3", AFFINE)), SPECS, mx.float32)


def test_a_rule_for_sliding_layers_needs_some() -> None:
    with pytest.raises(VlmkitError, match=r"'sliding' is about no attention layer .* layers 0-1 "):
        build_cache(_config(("sliding", AFFINE)), [FULL, FULL], 1, mx.float32)


@pytest.mark.parametrize("layers", ["even", "first 0", "-1", "1,2", ""])
def test_layers_that_cannot_be_read_are_refused(layers: str) -> None:
    with pytest.raises(ValidationError, match="names no layers; give a number, a range"):
        _config((layers, AFFINE))

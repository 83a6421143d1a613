"""Layers of other kinds of memory: a sliding window, keys and values of different sizes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.kinds import CONFIGS, NUM_HEADS, expected_of, feed, random_tokens
from tests.cache.test_laws import assert_close, lengths, seeds, widths_for
from tests.effort import scaled
from vlmkit.cache import AffineConfig, DenseConfig, RotatingConfig, build_cache, describe_cache
from vlmkit.contracts.interface import CacheKind, KVSpec, LayerSpec, RecurrentSpec, StateArray
from vlmkit.errors import VlmkitError

SPECS = {
    "wide_keys": KVSpec(2, 64, 32, num_heads=NUM_HEADS),
    "wide_values": KVSpec(1, 32, 128, num_heads=NUM_HEADS),
    "window_5": KVSpec(2, 32, 32, window=5),
    "window_1": KVSpec(3, 32, 32, window=1),
    "window_20_of_wide_keys": KVSpec(2, 64, 32, window=20),
}
every_case = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def kind_of(config: Any, spec: KVSpec) -> CacheKind:
    kind = build_cache(config, [spec], 0, mx.float32).kinds[0]
    assert isinstance(kind, CacheKind)
    return kind


@every_config
@every_case
@settings(max_examples=scaled(4))
@given(
    data=st.data(),
    counts=st.lists(lengths, min_size=1, max_size=3),
    more=st.integers(1, 12),
    seed=seeds,
)
def test_rows_in_chunks_and_steps_equal_the_reference(
    config: Any, spec: KVSpec, data: st.DataObject, counts: list[int], more: int, seed: int
) -> None:
    kind, batch = kind_of(config, spec), len(counts)
    rows = [random_tokens(count + more, seed + row, spec) for row, count in enumerate(counts)]
    prompts = [row.part(0, count) for row, count in zip(rows, counts, strict=True)]
    state = kind.init(batch, spec, mx.float32)
    widths = data.draw(widths_for(max(counts)))
    state, first = feed(kind, state, [0] * batch, prompts, widths)
    order = data.draw(st.lists(st.integers(0, batch - 1), min_size=1, max_size=3))
    rests = [rows[row].part(counts[row], counts[row] + more) for row in order]
    chosen = kind.join(
        [kind.select(state, [row], counts) for row in order], [[counts[row]] for row in order]
    )
    _, then = feed(kind, chosen, [counts[row] for row in order], rests, [1] * more)
    wanted = [expected_of(config, spec, row) for row in rows]
    for row, output in enumerate(first):
        assert_close(output, wanted[row][:, : counts[row]])
    for row, output in zip(order, then, strict=True):
        assert_close(output, wanted[row][:, counts[row] :])


@pytest.mark.parametrize("window", [1, 4, 300])
def test_a_window_is_a_rotating_cache_that_keeps_no_first_tokens(window: int) -> None:
    spec, plain = KVSpec(2, 32, 32, window), KVSpec(2, 32, 32)
    rows = [random_tokens(340, 1), random_tokens(290, 2)]
    outputs, sizes = [], []
    for config, one in [
        (DenseConfig(), spec),
        (RotatingConfig(max_size=window, keep=0), plain),
    ]:
        kind = kind_of(config, one)
        state = kind.init(2, one, mx.float32)
        state, output = feed(kind, state, [0, 0], rows, [7, 250, *[1] * 83])
        outputs.append(output)
        sizes.append(kind.num_bytes(state))
    assert all(np.array_equal(one, two) for one, two in zip(*outputs, strict=True))
    assert sizes[0] == sizes[1]
    assert kind.settings != kind_of(DenseConfig(), spec).settings


STATE = RecurrentSpec((StateArray("conv", (3, 8)), StateArray("state", (2, 4, 4), mx.float32)))
HYBRID: list[LayerSpec] = [STATE, SPECS["window_5"], KVSpec(2, 64, 32), STATE, SPECS["window_5"]]


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (DenseConfig(), 5),
        (RotatingConfig(max_size=64), 5),
        (RotatingConfig(max_size=4, keep=1), 3),
        (AffineConfig(bits=4, group_size=32), 5),
        (AffineConfig(bits=4, group_size=32, max_size=6, keep=2), 4),
    ],
)
def test_a_config_applies_to_attention_layers(config: Any, window: int) -> None:
    cache = build_cache(config, HYBRID, 2, mx.float16)
    names = ["recurrent", config.kind, config.kind, "recurrent", config.kind]
    assert [kind.name for kind in cache.kinds] == names
    assert cache.kinds[1] is cache.kinds[4] is not cache.kinds[2]
    for state in (cache.layers[0], cache.layers[3]):
        assert [(x.shape, x.dtype) for x in state] == [
            ((2, 3, 8), mx.float16),
            ((2, 2, 4, 4), mx.float32),
        ]
    facts = describe_cache(config, HYBRID, mx.float16)
    assert facts["sliding_windows"] == {str(window): [1, 4]}
    assert facts["recurrent_layers"] == [0, 3]
    assert facts["bytes_per_row"] == 2 * (3 * 8 * 2 + 2 * 4 * 4 * 4)
    bits = facts["key_bits_per_element"], facts["value_bits_per_element"]
    assert facts["bytes_per_token"] == (2 * (32 * 2 + 64) * bits[0] + 2 * 32 * 3 * bits[1]) / 8
    assert facts["num_layers"] == 5


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ((64, 96), r"64 does not divide head_dim 64 and 96; use group_size 32 \(layer 1\)$"),
        (
            (64, 48),
            r"64 does not divide head_dim 48 and 64; use a cache of kind dense \(layer 1\)$",
        ),
    ],
)
def test_both_sizes_have_to_divide_into_groups(dims: tuple[int, int], said: str) -> None:
    with pytest.raises(VlmkitError, match=rf"^cache\.group_size: {said}"):
        build_cache(AffineConfig(), [STATE, KVSpec(1, *dims)], 1, mx.float32)

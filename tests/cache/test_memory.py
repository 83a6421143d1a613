"""What a cache holds, and when appending copies it."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.cache.kinds import (
    CONFIGS,
    FINISHING,
    SHAPE,
    feed,
    kind_of,
    limits_of,
    random_tokens,
)
from vlmkit.cache import AffineConfig, DenseConfig, RotatingConfig, build_cache
from vlmkit.contracts.interface import KVSpec, Pytree, Span

BIG = KVSpec(4, 128, 128)
NUM_SLOTS = 2048


def test_buffers_grow_in_steps_of_256_slots() -> None:
    kind = kind_of("dense")
    state = kind.init(1, SHAPE, mx.float32)
    sizes = []
    for start, count in [(0, 1), (1, 255), (256, 1), (257, 600)]:
        state, _ = feed(kind, state, [start], [random_tokens(count, 0)], [count])
        sizes.append(state.keys[0].shape[2])
    assert sizes == [256, 256, 512, 1024]


@pytest.mark.parametrize("name", ["rotating", "affine_rotating"])
def test_a_rotating_cache_holds_max_size_and_one_chunk(name: str) -> None:
    kind, max_size = kind_of(name), CONFIGS[name].max_size
    state = kind.init(1, SHAPE, mx.float32)
    for start in (0, 8, 16, 24):
        state, _ = feed(kind, state, [start], [random_tokens(8, 0)], [8])
        assert state.keys[0].shape[2] <= max_size + 8 - 1
    state, _ = feed(kind, state, [32], [random_tokens(1, 0)], [1])
    assert state.keys[0].shape[2] == max_size


def test_a_single_row_needs_no_mask_to_decode() -> None:
    for name in CONFIGS:
        kind = kind_of(name)
        state, _ = feed(kind, kind.init(1, SHAPE, mx.float32), [0], [random_tokens(20, 0)], [20])
        plan = kind.plan(state, Span((20,), (1,), 1))
        if name == "recent_rotating":  # of the slots of a ring, some are seen in one form only
            continue
        plan = plan.full if name in FINISHING else plan
        assert plan.mask is None
        if name not in ("kvarn", "kivi"):  # counts blocks
            assert plan.num_used == min(21, (limits_of(CONFIGS[name]) or (21, 0))[0])


@pytest.mark.parametrize(
    "config",
    [DenseConfig(), RotatingConfig(max_size=NUM_SLOTS), AffineConfig(bits=8)],
    ids=lambda config: config.kind,
)
@pytest.mark.parametrize("starts", [(1500,), (1500, 900)], ids=["one_row", "unequal_rows"])
def test_appending_copies_only_a_state_that_is_kept(
    config: DenseConfig | RotatingConfig | AffineConfig, starts: tuple[int, ...]
) -> None:
    kind = build_cache(config, [BIG], 0, mx.float16).kinds[0]
    batch = len(starts)
    state = kind.init(batch, BIG, mx.float16)
    long = mx.zeros((batch, 4, NUM_SLOTS, 128), mx.float16)
    plan = kind.plan(state, Span((0,) * batch, starts, NUM_SLOTS))
    state = kind.append(state, long, long, plan)
    mx.eval(state)
    size = kind.num_bytes(state)

    def step(state: Pytree, starts: tuple[int, ...]) -> Pytree:
        plan = kind.plan(state, Span(starts, (1,) * batch, 1))
        one = mx.zeros((batch, 4, 1, 128), mx.float16)
        return kind.append(state, one, one, plan)

    state = step(state, starts)
    mx.eval(state)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    state = step(state, tuple(start + 1 for start in starts))
    mx.eval(state)
    assert mx.get_peak_memory() - before < size / 10
    branch = step(state, tuple(start + 2 for start in starts))
    mx.eval(branch)
    assert mx.get_peak_memory() - before > size * 0.9

"""Laws of the state of a recurrent layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from vlmkit.cache import DenseConfig, build_cache, join_rows, select_rows
from vlmkit.cache.recurrent import State, recurrent
from vlmkit.contracts.interface import KVSpec, RecurrentSpec, StateArray
from vlmkit.errors import VlmkitError

SPEC = RecurrentSpec((StateArray("conv", (3, 5)), StateArray("state", (2, 4), mx.float32)))
KIND = recurrent()

seeds = st.integers(0, 2**31)
batches = st.lists(st.integers(1, 3), min_size=1, max_size=3)


def random_state(batch: int, seed: int) -> State:
    rng = np.random.default_rng(seed)
    return tuple(
        mx.array(rng.standard_normal((batch, *array.shape), np.float32)) for array in SPEC.arrays
    )


def values(state: State) -> list[np.ndarray]:
    return [np.array(x) for x in state]


def same(one: State, two: State) -> bool:
    pairs = zip(values(one), values(two), strict=True)
    return all(x.shape == y.shape and np.array_equal(x, y) for x, y in pairs)


def test_it_begins_with_zeros_in_the_dtypes_of_its_spec() -> None:
    state = KIND.init(2, SPEC, mx.bfloat16)
    assert [(x.shape, x.dtype) for x in state] == [
        ((2, 3, 5), mx.bfloat16),
        ((2, 2, 4), mx.float32),
    ]
    assert not any(x.any().item() for x in state)
    assert KIND.num_bytes(state) == 2 * (3 * 5 * 2 + 2 * 4 * 4)


def select(state: Any, rows: Sequence[int]) -> Any:
    return KIND.select(state, rows, (0,) * state[0].shape[0])


@settings(max_examples=scaled(25))
@given(sizes=batches, seed=seeds, data=st.data())
def test_rows_joined_and_selected_are_the_rows_that_were(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    states = [random_state(size, seed + place) for place, size in enumerate(sizes)]
    before = [values(state) for state in states]
    joined = KIND.join(states, [(0,) * size for size in sizes])
    rows = [(place, row) for place, size in enumerate(sizes) for row in range(size)]
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    chosen = select(joined, order)
    for at, number in enumerate(order):
        place, row = rows[number]
        assert same(select(chosen, [at]), select(states[place], [row]))
    start = 0
    for state, size in zip(states, sizes, strict=True):
        assert same(select(joined, range(start, start + size)), state)
        start += size
    for state, held in zip(states, before, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(values(state), held, strict=True))
    assert KIND.num_bytes(joined) == sum(KIND.num_bytes(state) for state in states)


@settings(max_examples=scaled(25))
@given(size=st.integers(1, 4), seed=seeds, data=st.data())
def test_no_token_can_be_taken_back(size: int, seed: int, data: st.DataObject) -> None:
    state = random_state(size, seed)
    seen = data.draw(st.lists(st.integers(1, 9), min_size=size, max_size=size))
    assert same(KIND.trim(state, seen, seen), state)
    row = data.draw(st.integers(0, size - 1))
    kept = [*seen[:row], data.draw(st.integers(0, seen[row] - 1)), *seen[row + 1 :]]
    with pytest.raises(VlmkitError, match=r"^cache: a recurrent layer cannot take tokens back; "):
        KIND.trim(state, seen, kept)


def test_rows_move_together_with_those_of_attention_layers() -> None:
    specs = [SPEC, KVSpec(1, 4, 4)]
    caches = [build_cache(DenseConfig(), specs, 1, mx.float32) for _ in range(2)]
    states = [random_state(1, seed) for seed in (1, 2)]
    joined = join_rows(
        [
            cache._replace(layers=(state, cache.layers[1]), lengths=(length,))
            for cache, state, length in zip(caches, states, (3, 5), strict=True)
        ]
    )
    picked = select_rows(joined, [1, 1, 0])
    assert picked.lengths == (5, 5, 3)
    for at, source in enumerate((1, 1, 0)):
        assert same(select(picked.layers[0], [at]), states[source])

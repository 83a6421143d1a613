"""Rows of every kind of cache, fed, branched, joined and cut back in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.kinds import CONFIGS
from tests.cache.moves import add, append, begin, cut, eager, pick
from tests.effort import scaled
from vlmkit.cache import AffineConfig, RotatingConfig, build_kind

KEEPS_ALL = [name for name in CONFIGS if build_kind(CONFIGS[name]).keeps_all]


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=scaled(8))
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_rows_go_on_as_if_alone_whatever_moves_they_make(
    name: str, data: st.DataObject, seed: int
) -> None:
    kind = eager(name)
    small = st.integers(1, 8)
    rows = begin(name, kind, data.draw(st.integers(1, 20)), seed)
    moves = ["pick", "add", "join", *(["cut"] if name in KEEPS_ALL else [])]
    for number in range(data.draw(st.integers(2, 5))):
        batch = len(rows.tokens)
        move = data.draw(st.sampled_from(moves)) if number else "pick"
        if move == "pick":
            some = st.lists(st.integers(0, batch - 1), min_size=1, max_size=4)
            rows = pick(kind, rows, data.draw(some))
        elif move == "join":
            other = begin(name, kind, data.draw(small), seed + 50 + number)
            repeated = pick(kind, other, [0] * data.draw(st.integers(1, 2)))
            rows = append(kind, data.draw(st.permutations([rows, repeated])))
        elif move == "cut":
            kept = [data.draw(st.integers(max(n - 4, 0), n)) for n in rows.seen]
            rows = cut(kind, rows, kept)
        else:
            counts = [data.draw(small) for _ in range(batch)]
            rows = add(name, kind, rows, counts, seed + 100 * number)
        rows = add(name, kind, rows, [1] * len(rows.tokens), seed + 1000 + 100 * number)


@pytest.mark.parametrize("name", KEEPS_ALL)
def test_a_branched_state_stays_valid(name: str) -> None:
    kind = eager(name)
    prompt = begin(name, kind, 20, 1)
    rows = pick(kind, prompt, [0, 0, 0])
    for seed in (2, 3):
        more = add(name, kind, rows, [3, 1, 2], seed)
        add(name, kind, more, [1, 1, 1], 10 + seed)
    add(name, kind, prompt, [4], 30)


def test_what_keeps_all_is_dense_and_affine() -> None:
    kinds: list[Any] = [RotatingConfig(max_size=8), AffineConfig(max_size=8), AffineConfig()]
    assert [build_kind(config).keeps_all for config in kinds] == [False, False, True]
    assert {"dense", "affine_8", "affine_3", "affine_k8_v4"} <= set(KEEPS_ALL)

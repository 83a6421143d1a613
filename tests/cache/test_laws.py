"""Laws that every kind of cache obeys, checked over random rows and cuts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.cache.kinds import CONFIGS, SCALE, SHAPE, expected, feed, kind_of, random_tokens
from tests.effort import scaled
from vlmkit.contracts.interface import Pytree, Span

every_kind = pytest.mark.parametrize("name", CONFIGS)
# Rows before and after their start lie in rings of different sizes, which joining brings together.
RESIZED = ("start", "recent_turboquant", "recent_rotating")
modest = settings(max_examples=scaled(6))

lengths = st.integers(1, 30)
seeds = st.integers(0, 2**31)


@st.composite
def widths_for(draw: st.DrawFn, total: int) -> list[int]:
    """Cut ``total`` tokens into chunks."""
    cuts = draw(st.lists(st.integers(1, total), max_size=4, unique=True).map(sorted))
    edges = [0, *(cut for cut in cuts if cut < total), total]
    return [stop - start for start, stop in pairwise(edges)]


def assert_close(actual: NDArray[np.float32], desired: NDArray[Any]) -> None:
    """Equal up to the error of ``mx.softmax``, 3e-6 relative on numbers of size 1."""
    np.testing.assert_allclose(actual, desired, atol=5e-6, rtol=5e-6)


def empty(name: str, batch: int) -> Pytree:
    return kind_of(name).init(batch, SHAPE, mx.float32)


@every_kind
@modest
@given(data=st.data(), counts=st.lists(lengths, min_size=1, max_size=3), seed=seeds)
def test_rows_in_any_chunks_equal_the_reference(
    name: str, data: st.DataObject, counts: list[int], seed: int
) -> None:
    rows = [random_tokens(count, seed + row) for row, count in enumerate(counts)]
    widths = data.draw(widths_for(max(counts)))
    _, outputs = feed(kind_of(name), empty(name, len(rows)), [0] * len(rows), rows, widths)
    for row, output in zip(rows, outputs, strict=True):
        assert_close(output, expected(name, row))


@every_kind
@modest
@given(data=st.data(), count=lengths, seed=seeds)
def test_chunks_equal_one_append(name: str, data: st.DataObject, count: int, seed: int) -> None:
    kind, row = kind_of(name), random_tokens(count, seed)
    _, [whole] = feed(kind, empty(name, 1), [0], [row], [count])
    _, [cut] = feed(kind, empty(name, 1), [0], [row], data.draw(widths_for(count)))
    _, [single] = feed(kind, empty(name, 1), [0], [row], [1] * count)
    assert_close(cut, whole)
    assert_close(single, whole)


@every_kind
@modest
@given(counts=st.lists(lengths, min_size=2, max_size=4), more=st.integers(1, 15), seed=seeds)
def test_batched_rows_equal_single_rows(name: str, counts: list[int], more: int, seed: int) -> None:
    kind = kind_of(name)
    rows = [random_tokens(count + more, seed + row) for row, count in enumerate(counts)]
    prompts = [row.part(0, count) for row, count in zip(rows, counts, strict=True)]
    rests = [row.part(count, count + more) for row, count in zip(rows, counts, strict=True)]
    state, _ = feed(kind, empty(name, len(rows)), [0] * len(rows), prompts, [max(counts)])
    _, batched = feed(kind, state, counts, rests, [1] * more)
    for count, prompt, rest, output in zip(counts, prompts, rests, batched, strict=True):
        state, _ = feed(kind, empty(name, 1), [0], [prompt], [count])
        _, [alone] = feed(kind, state, [count], [rest], [1] * more)
        assert_close(output, alone)


@every_kind
@modest
@given(count=lengths, left=st.integers(1, 20), right=st.integers(1, 20), seed=seeds)
def test_a_kept_state_can_be_continued_twice(
    name: str, count: int, left: int, right: int, seed: int
) -> None:
    kind, prompt = kind_of(name), random_tokens(count, seed)
    state, _ = feed(kind, empty(name, 1), [0], [prompt], [count])
    before = [np.array(x) for x in (*state.keys, *state.values, state.ends)]
    continuations = [random_tokens(left, seed + 1), random_tokens(right, seed + 2)]
    for rest, widths in zip(continuations, ([1] * left, [right]), strict=True):
        _, [output] = feed(kind, state, [count], [rest], widths)
        whole = type(rest)(*(np.concatenate(p, axis=1) for p in zip(prompt, rest, strict=True)))
        assert_close(output, expected(name, whole)[:, count:])
    after = [np.array(x) for x in (*state.keys, *state.values, state.ends)]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


@every_kind
@modest
@given(counts=st.lists(lengths, min_size=2, max_size=3), seed=seeds)
def test_padding_leaves_no_trace(name: str, counts: list[int], seed: int) -> None:
    kind, batch = kind_of(name), len(counts)
    rows = [random_tokens(count + 6, seed + row) for row, count in enumerate(counts)]
    prompts = [row.part(0, count) for row, count in zip(rows, counts, strict=True)]
    rests = [row.part(count, count + 6) for row, count in zip(rows, counts, strict=True)]
    results = []
    for padding in (0.0, -1000.0):
        state, first = feed(
            kind, empty(name, batch), [0] * batch, prompts, [max(counts), 3], padding=padding
        )
        _, then = feed(kind, state, counts, rests, [4, 1, 1])
        results.append([*first, *then])
    assert all(np.array_equal(x, y) for x, y in zip(*results, strict=True))


@every_kind
@modest
@given(counts=st.lists(lengths, min_size=3, max_size=3), seed=seeds, data=st.data())
def test_rows_joined_and_selected_go_on_as_before(
    name: str, counts: list[int], seed: int, data: st.DataObject
) -> None:
    # The states come with buffers of different sizes: fresh from a chunk, and after a decode step.
    kind = kind_of(name)
    rows = [random_tokens(count + 15, seed + row) for row, count in enumerate(counts)]
    states = []
    for row, count in zip(rows, counts, strict=True):
        widths = data.draw(widths_for(count))
        states.append(feed(kind, empty(name, 1), [0], [row.part(0, count)], widths)[0])
    order = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    state = kind.select(kind.join(states, [[count] for count in counts]), order, counts)
    parts = [rows[row].part(counts[row], counts[row] + 15) for row in order]
    widths = data.draw(widths_for(15))
    _, outputs = feed(kind, state, [counts[row] for row in order], parts, widths)
    for row, output in zip(order, outputs, strict=True):
        assert_close(output, expected(name, rows[row])[:, counts[row] :])


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in RESIZED])
@modest
@given(counts=st.lists(lengths, min_size=2, max_size=4), seed=seeds)
def test_selecting_what_was_joined_gives_it_back(name: str, counts: list[int], seed: int) -> None:
    kind = kind_of(name)
    states = [
        feed(kind, empty(name, 1), [0], [random_tokens(count, seed)], [1] * count)[0]
        for count in counts
    ]
    joined = kind.join(states, [[count] for count in counts])
    for row, state in enumerate(states):
        back = kind.select(joined, [row], counts)
        slots = state.keys[0].shape[2]
        for x, y in zip((*state.keys, *state.values), (*back.keys, *back.values), strict=True):
            held = min(counts[row], slots)
            assert np.array_equal(np.array(x[:, :, :held]), np.array(y[:, :, :held]))
        assert back.ends.tolist() == state.ends.tolist() == [counts[row]]


@every_kind
def test_rows_longer_than_a_growth_step(name: str) -> None:
    kind, row = kind_of(name), random_tokens(330, 7)
    _, [output] = feed(kind, empty(name, 1), [0], [row], [250, 20, *[1] * 60])
    assert_close(output, expected(name, row))


@every_kind
def test_fetch_is_what_attend_sees(name: str) -> None:
    kind, rows = kind_of(name), [random_tokens(20, 1), random_tokens(9, 2)]
    state, _ = feed(kind, empty(name, 2), [0, 0], rows, [20])
    new = [random_tokens(5, 3), random_tokens(5, 4)]
    queries, keys, values = (mx.array(np.stack([row[i] for row in new])) for i in range(3))
    plan = kind.plan(state, Span(starts=(20, 9), lengths=(5, 5), width=5))
    state = kind.append(state, keys, values, plan)
    keys, values, mask = kind.fetch(state, plan, mx.float32)
    assert mask is not None
    assert mask.shape == (2, 1, 5, keys.shape[2])
    fetched = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE, mask=mask)
    assert_close(np.array(fetched), np.array(kind.attend(state, queries, plan, SCALE)))


@every_kind
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_dtypes_are_kept(name: str, dtype: mx.Dtype) -> None:
    kind = kind_of(name)
    state = kind.init(1, SHAPE, dtype)
    plan = kind.plan(state, Span(starts=(0,), lengths=(3,), width=3))
    ones = mx.ones((1, 2, 3, SHAPE.key_dim), dtype)
    state = kind.append(state, ones, ones, plan)
    assert kind.attend(state, ones, plan, SCALE).dtype == dtype
    assert kind.fetch(state, plan, dtype)[0].dtype == dtype
    before = [x.dtype for x in (*state.keys, *state.values)]
    plan = kind.plan(state, Span(starts=(3,), lengths=(1,), width=1))
    state = kind.append(state, ones[:, :, :1], ones[:, :, :1], plan)
    assert [x.dtype for x in (*state.keys, *state.values)] == before

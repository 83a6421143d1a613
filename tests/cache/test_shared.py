"""What rows that begin alike share, and when they stop."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.cache.kinds import CONFIGS, FINISHING, SCALE, SHAPE, kind_of, random_tokens
from tests.cache.moves import Rows, add, append, begin, cut, eager, pick
from vlmkit.backend.forms import make_forms
from vlmkit.cache import build_kind, describe_cache
from vlmkit.cache.compose import KVState
from vlmkit.cache.prefixes import SharedState
from vlmkit.cache.shared import MIN_SAVED
from vlmkit.contracts.interface import RecurrentSpec, Span, StateArray

KIND = eager("dense")
kinds = pytest.mark.parametrize("name", ["dense", "affine_3"])


def shares(rows: Rows) -> tuple[int | None, ...]:
    """The place of each row's prefix."""
    assert isinstance(rows.state, SharedState)
    return rows.state.places


def step(name: str, rows: Rows, seed: int = 5) -> Rows:
    return add(name, eager(name), rows, [1] * len(rows.tokens), seed)


@kinds
def test_branches_take_the_prefix_once_and_their_own_tokens(name: str) -> None:
    kind, prompt = eager(name), begin(name, eager(name), 300, 1)
    rows = step(name, pick(kind, prompt, [0] * 16))
    token = build_kind(CONFIGS[name]).hold(SHAPE, mx.float32, 1)
    per_token = token.key_bytes + token.value_bytes
    assert kind.num_bytes(rows.state) == per_token * (512 + 16 * 256) + 4 * 17
    copies = kind_of(name)
    copied = pick(copies, prompt, [0])._replace(tokens=prompt.tokens * 16)
    assert kind.num_bytes(copied.state) == per_token * 512 + 4
    assert shares(rows) == (0,) * 16


def test_rows_of_several_prefixes_may_stand_in_any_order() -> None:
    one, two, short = (begin("dense", KIND, count, count) for count in (30, 28, 9))
    rows = append(KIND, [pick(KIND, one, [0, 0]), pick(KIND, two, [0, 0]), short])
    assert shares(rows) == (0, 0, 1, 1, None)
    rows = step("dense", rows)
    rows = pick(KIND, rows, [2, 0, 4, 3, 1])
    assert shares(rows) == (1, 0, None, 1, 0)
    rows = add("dense", KIND, step("dense", rows), [3, 1, 4, 2, 5], 8)
    rows = step("dense", pick(KIND, rows, [4, 2, 0, 3]))
    assert shares(rows) == (0, None, 1, 1)


def test_a_long_row_that_joins_becomes_a_prefix_of_its_own() -> None:
    prompt, other = begin("dense", KIND, 30, 1), begin("dense", KIND, 270, 2)
    rows = step("dense", append(KIND, [pick(KIND, prompt, [0, 0]), other]))
    assert shares(rows) == (0, 0, 1)
    assert rows.state.own.keys[0].shape[2] == 256


def test_a_row_that_joins_later_finds_its_prefix() -> None:
    prompt = begin("dense", KIND, 30, 1)
    rows = step("dense", pick(KIND, prompt, [0, 0]))
    rows = step("dense", append(KIND, [rows, prompt, pick(KIND, prompt, [0, 0])]))
    assert shares(rows) == (0,) * 5
    assert rows.seen == (32, 32, 31, 31, 31)


def test_a_row_that_leaves_copies_nothing_of_the_others() -> None:
    rows = step("dense", pick(KIND, begin("dense", KIND, 30, 1), [0] * 4))
    (prefix,) = rows.state.prefixes
    left = step("dense", pick(KIND, rows, [0, 2, 3]))
    assert left.state.prefixes[0].state.keys[0] is prefix.state.keys[0]


def test_the_last_row_of_a_prefix_has_a_plain_state_and_frees_it() -> None:
    one, two = begin("dense", KIND, 300, 1), begin("dense", KIND, 40, 2)
    rows = step("dense", append(KIND, [pick(KIND, one, [0, 0]), pick(KIND, two, [0, 0])]))
    del one
    before = KIND.num_bytes(rows.state)
    rows = step("dense", pick(KIND, rows, [0, 2, 3]))  # one row of the first prompt
    assert shares(rows) == (0, 1, 1)
    rows = step("dense", pick(KIND, rows, [1, 2]))
    assert len(rows.state.prefixes) == 1
    mx.eval(rows.state)
    assert before - KIND.num_bytes(rows.state) > 2 * 4 * 2 * 32 * 300
    rows = step("dense", pick(KIND, rows, [1]))
    assert isinstance(rows.state, KVState)


def test_a_row_taken_before_it_adds_anything_is_the_prefix_itself() -> None:
    prompt = begin("dense", KIND, 300, 1)
    alone = pick(KIND, pick(KIND, prompt, [0] * 3), [1])
    assert alone.state.keys[0] is prompt.state.keys[0]


def test_what_rows_have_behind_a_prefix_is_shared_once_that_saves_more_than_it_copies() -> None:
    kind = kind_of("dense")
    rows = pick(kind, begin("dense", kind, 300, 1), [0, 0])
    rows = add("dense", kind, rows, [290, 290], 2)
    few = step("dense", pick(kind, rows, [0, 0, 1]))
    assert shares(few) == (0, 0, 0)
    many = step("dense", pick(kind, rows, [0, 0, 0, 1]))
    assert shares(many) == (1, 1, 1, 0)
    assert many.state.starts == (590, 590, 590, 300)


def test_short_rows_are_copied() -> None:
    kind = kind_of("dense")
    prompt = begin("dense", kind, MIN_SAVED // 4 - 1, 1)
    assert isinstance(pick(kind, prompt, [0] * 5).state, KVState)
    assert isinstance(pick(kind, prompt, [0] * 6).state, SharedState)


@kinds
def test_rows_cut_back_into_a_prefix_see_less_of_it(name: str) -> None:
    kind = eager(name)
    rows = step(name, pick(kind, begin(name, kind, 300, 1), [0, 0]))
    same = cut(kind, rows, [200, 200])
    assert shares(same) == (0, 0)
    assert same.state.starts == (200, 200)
    step(name, step(name, same))
    different = cut(kind, rows, [200, 301])
    assert isinstance(different.state, KVState)
    step(name, different)
    step(name, cut(kind, rows, [0, 0]))


@kinds
def test_fetch_gives_whole_rows(name: str) -> None:
    kind = eager(name)
    rows = add(name, kind, pick(kind, begin(name, kind, 20, 1), [0, 0, 0]), [5, 2, 3], 2)
    new = [random_tokens(4, seed) for seed in (3, 4, 5)]
    queries, keys, values = (mx.array(np.stack([row[i] for row in new])) for i in range(3))
    plan = kind.plan(rows.state, Span(rows.seen, (4, 4, 4), 4))
    state = kind.append(rows.state, keys, values, plan)
    keys, values, mask = kind.fetch(state, plan, mx.float32)
    whole = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE, mask=mask)
    own = kind.attend(state, queries, plan, SCALE)
    np.testing.assert_allclose(np.array(own), np.array(whole), atol=5e-6, rtol=5e-6)


@pytest.mark.parametrize("activations", ["native", "polynomial"])
@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_one_softmax_over_prefix_and_rest(activations: str, length: int, dtype: mx.Dtype) -> None:
    forms = make_forms(
        attention="matmul", activations=activations, on_gpu=False, compiled=False, metal=False
    )
    assert forms.prefixed is not None
    key = mx.random.key(1)
    queries, keys, values = (
        mx.random.normal((5, heads, count, 32), key=part).astype(dtype)
        for heads, count, part in zip(
            (6, 2, 2), (length, 50, 50), mx.random.split(key, 3), strict=True
        )
    )
    first, second = (
        mx.random.normal((1, 2, 4000, 32), key=part).astype(dtype) for part in mx.random.split(key)
    )
    mask = mx.arange(50) <= mx.arange(50 - length, 50)[:, None]
    found = forms.prefixed(queries, first, second, keys, values, mask[None, None], SCALE)
    whole = [
        mx.concatenate([mx.broadcast_to(x, (5, *x.shape[1:])), y], axis=2)
        for x, y in ((first, keys), (second, values))
    ]
    seen = mx.concatenate([mx.ones((length, 4000), mx.bool_), mask], axis=1)
    wanted = forms.attention(queries, *whole, seen[None, None], SCALE)
    assert found.dtype == dtype
    close = 5e-6 if dtype == mx.float32 else 2e-2
    assert mx.allclose(found.astype(mx.float32), wanted.astype(mx.float32), atol=close, rtol=close)


def test_what_shares_is_described() -> None:
    specs = [SHAPE, SHAPE._replace(window=8), RecurrentSpec((StateArray("conv", (3, 8)),))]
    found = {
        name: describe_cache(config, specs, mx.float32)["num_sharing_layers"]
        for name, config in CONFIGS.items()
        if not name.startswith("external")
    }
    copied = ("rotating", "recent", "start", "kivi", "kvarn", *FINISHING)  # rings, forms, blocks
    assert {name for name, layers in found.items() if layers} == {
        name for name in found if not any(word in name for word in copied)
    }
    assert set(found.values()) == {0, 1}
    facts = describe_cache(CONFIGS["dense"], specs, mx.float32, sharing=False)
    assert facts["num_sharing_layers"] == 0

"""A third party's kind of cache: checked as it is made, and at every step."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from tests.cache.kinds import SHAPE
from vlmkit.cache import DenseConfig, External, build_cache, dense, describe_cache
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, Span
from vlmkit.errors import VlmkitError

HERE = "tests.cache.test_external_kind"
WINDOW = KVSpec(2, 32, 32, window=5)


def make_kind(*, breaks: str = "nothing") -> CacheKind:
    """The dense kind, but for one rule."""
    kind = dense(DenseConfig())
    broken: dict[str, dict[str, Any]] = {
        "nothing": {},
        "the settings": {"settings": ["no", "hash"]},
        "the state": {"init": lambda batch, spec, dtype: {"keys": mx.zeros((1, 8))}},
        "what is appended": {"append": lambda state, keys, values, plan: (keys, 3)},
        "the output": {"attend": lambda state, queries, plan, scale: queries[:, :1]},
        "its dtype": {"attend": lambda state, queries, plan, scale: queries.astype(mx.float16)},
        "what it holds": {"hold": lambda spec, dtype, seen: Held(seen + 1, 0, 0)},
        "the word for it": {"hold": lambda spec, dtype, seen: seen},
        "the window": {"windowed": None},
        "the window's kind": {"windowed": lambda window: window},
    }
    return kind._replace(name="made", **broken[breaks])


def run(breaks: str) -> None:
    config = External(factory=f"{HERE}:make_kind", config={"breaks": breaks})
    cache = build_cache(config, [SHAPE, WINDOW], 2, mx.float32)
    kind = cache.kinds[0]
    assert isinstance(kind, CacheKind)
    plan = kind.plan(cache.layers[0], Span((0, 0), (1, 1), 1))
    one = mx.zeros((2, 2, 1, 32))
    state = kind.append(cache.layers[0], one, one, plan)
    assert kind.attend(state, mx.zeros((2, 6, 1, 32)), plan, 1.0).shape == (2, 6, 1, 32)


def test_a_kind_that_keeps_the_rules_runs() -> None:
    run("nothing")


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ("the settings", "its name must be a text, and its settings must have a hash"),
        ("the state", "state.keys is float32 [1, 8]; every leaf needs one entry per row, [2, ...]"),
        ("what is appended", "state.1 is a int; every leaf needs one entry per row, [2, ...]"),
        (
            "the output",
            "attend gave float32 [2, 1, 1, 32] for queries float32 [2, 6, 1, 32]; it must be "
            "[B, H, L, value_dim] in their dtype",
        ),
        (
            "its dtype",
            "attend gave float16 [2, 6, 1, 32] for queries float32 [2, 6, 1, 32]; it must be "
            "[B, H, L, value_dim] in their dtype",
        ),
        ("the word for it", "hold gave 1 for 1 tokens; it must be a Held of 0 to 1 tokens"),
        ("the window's kind", "windowed gave a int, not a CacheKind"),
    ],
)
def test_a_kind_that_breaks_one_is_stopped(breaks: str, said: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        run(breaks)
    where = f"external: cache 'made' of factory '{HERE}:make_kind': "
    assert str(caught.value).startswith(where + said)
    assert caught.value.path == ("cache",)


def test_a_kind_cannot_hold_more_than_it_has_seen() -> None:
    with pytest.raises(VlmkitError, match=r"hold gave Held\(num_tokens=2, .* of 0 to 1 tokens"):
        run("what it holds")


def test_a_model_with_sliding_windows_needs_a_kind_for_them() -> None:
    with pytest.raises(VlmkitError) as caught:
        run("the window")
    assert str(caught.value) == (
        "cache: made has no kind for the sliding window of 5 tokens (layer 1); use a cache of kind "
        "dense"
    )


def test_it_says_what_it_comes_to() -> None:
    facts = describe_cache(
        External(factory="experiments.own_cache:half"), [SHAPE, WINDOW], mx.float32
    )
    assert facts["kind"] == "external"
    assert (facts["key_bits_per_element"], facts["value_bits_per_element"]) == (16, 16)
    assert facts["bytes_per_token"] == 2 * 2 * 2 * 32 * 2
    assert facts["sliding_windows"] == {"5": [1]}

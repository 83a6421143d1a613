"""Tokens dropped at the end of a prompt: which, how many, and what is read of those left."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.cache.formulas import kept_by
from tests.cache.kinds import SHAPE, Tokens, feed, random_tokens
from tests.cache.test_laws import seeds, widths_for
from tests.cache.write_eviction_goldens import GOLDEN, NUM_LAYERS, NUM_TOKENS, RATIOS, SEED
from tests.effort import scaled
from vlmkit.cache import CacheConfig, DenseConfig, build_cache, finish_rows, hold_row, trim_rows
from vlmkit.cache.eviction.pyramidkv import PyramidKVConfig, layer_budget
from vlmkit.contracts.interface import Cache, CacheKind, KVSpec, PromptShape
from vlmkit.errors import VlmkitError

ADAPTER: TypeAdapter[Any] = TypeAdapter(CacheConfig)
METHODS: dict[str, dict[str, Any]] = {
    "snapkv": {"window": 6, "pool": 5},
    "h2o": {"attention": "mean", "recent_ratio": 0},
    "tova": {},
    "knorm": {},
    "keydiff": {},
    "random": {"seed": 3},
}
each_method = pytest.mark.parametrize("name", METHODS)
GOLDENS = json.loads(GOLDEN.read_text())


def config_of(name: str, **more: Any) -> Any:
    return ADAPTER.validate_python({"kind": name, **METHODS.get(name, {}), **more})


def numbered(tokens: Tokens) -> Tokens:
    """The same with the number of each token as its value."""
    places = np.arange(tokens.values.shape[1], dtype=np.float32)[:, None]
    return tokens._replace(values=np.broadcast_to(places, tokens.values.shape).copy())


def prefilled(config: Any, rows: list[Tokens], widths: list[int], images: Any = ()) -> Cache:
    """A cache of one layer after these prompts, all of whose images lie alike."""
    empty = build_cache(config, [SHAPE], len(rows), mx.float32)
    kind = empty.kinds[0]
    assert isinstance(kind, CacheKind)
    state, _ = feed(kind, empty.layers[0], [0] * len(rows), rows, widths)
    lengths = [row.keys.shape[1] for row in rows]
    cache = Cache(empty.kinds, (state,), tuple(lengths))
    return finish_rows(cache, [PromptShape(length, images) for length in lengths])


def kept_in(cache: Cache, row: int, count: int) -> list[list[int]]:
    """The numbers of the tokens that each head holds."""
    values = np.array(cache.layers[0].stored.values[0])
    return [[int(place) for place in head[:count, 0]] for head in values[row]]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "random"])
def test_the_tokens_kept_are_those_that_kvpress_keeps(name: str, ratio: float) -> None:
    row = numbered(random_tokens(NUM_TOKENS, SEED))
    cache = prefilled(config_of(name, ratio=ratio), [row], [NUM_TOKENS])
    wanted = GOLDENS[name][str(ratio)]
    assert kept_in(cache, 0, int(NUM_TOKENS * ratio)) == wanted


@pytest.mark.parametrize("case", GOLDENS["pyramidkv"])
def test_the_budgets_of_a_pyramid_are_those_of_kvpress(case: str) -> None:
    length, ratio, window, beta = (float(x) if "." in x else int(x) for x in case.split())
    config = PyramidKVConfig(ratio=ratio, window=window, beta=beta)
    budgets = [layer_budget(config, int(length), place, NUM_LAYERS) for place in range(NUM_LAYERS)]
    assert budgets == GOLDENS["pyramidkv"][case]
    assert sum(budgets) == pytest.approx(NUM_LAYERS * length * ratio, abs=NUM_LAYERS / 2)


def test_the_layers_of_a_pyramid_hold_their_budgets() -> None:
    config = config_of("pyramidkv", budget=20, window=2, beta=10)
    rows = [numbered(random_tokens(count, count)) for count in (60, 35)]
    cache = build_cache(config, [SHAPE] * 3, 2, mx.float32)
    shapes = [PromptShape(60), PromptShape(35)]
    for place, kind in enumerate(cache.kinds):
        assert isinstance(kind, CacheKind)
        assert kind.finishing is not None
        state, _ = feed(kind, cache.layers[place], [0, 0], rows, [60])
        state = kind.finishing.finish(state, shapes)
        for shape, dropped in zip(shapes, state.dropped, strict=True):
            budget = layer_budget(config, shape.length, place, 3)
            assert shape.length - dropped == budget
            assert hold_row(kind, SHAPE, mx.float32, shape, shape.length).num_tokens == budget
    assert [layer_budget(config, 60, place, 3) for place in range(3)] == [38, 20, 2]


@st.composite
def how_much(draw: st.DrawFn) -> dict[str, Any]:
    sinks = draw(st.integers(0, 3))
    if draw(st.booleans()):
        return {"budget": draw(st.integers(sinks + 7, 20)), "sinks": sinks}
    image = {"image_ratio": draw(st.sampled_from([0.2, 0.5, 1.0]))} if draw(st.booleans()) else {}
    return {"ratio": draw(st.sampled_from([0.1, 0.3, 0.29, 0.5, 0.9])), "sinks": sinks, **image}


@each_method
@settings(max_examples=scaled(12))
@given(data=st.data(), seed=seeds, much=how_much())
def test_rows_keep_what_the_formula_says_however_they_are_cut(
    name: str, data: st.DataObject, seed: int, much: dict[str, Any]
) -> None:
    if name == "h2o":
        much = {**much, "attention": data.draw(st.sampled_from(["sum", "mean"])),
                "recent_ratio": data.draw(st.sampled_from([0, 0.5]))}  # fmt: skip
        if "budget" in much:
            much["sinks"] = 0
    config = config_of(name, **much)
    counts = data.draw(st.lists(st.integers(12, 40), min_size=1, max_size=3))
    rows = [numbered(random_tokens(count, seed + place)) for place, count in enumerate(counts)]
    images = ((4, 9),)
    cache = prefilled(config, rows, data.draw(widths_for(max(counts))), images)
    kind = cache.kinds[0]
    assert isinstance(kind, CacheKind)
    for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
        prompt = PromptShape(count, images)
        wanted = kept_by(config, row, prompt)
        assert kept_in(cache, place, len(wanted[0])) == wanted
        held = hold_row(kind, SHAPE, mx.float32, prompt, count)
        assert held.num_tokens == len(wanted[0]) == count - cache.layers[0].dropped[place]
        assert held.key_bytes == held.num_tokens * 2 * 32 * 4


@pytest.mark.parametrize("name", [*METHODS, "pyramidkv"])
@pytest.mark.parametrize("much", [{"ratio": 1.0}, {"budget": 70}], ids=["ratio", "budget"])
def test_what_stays_whole_is_dense_to_the_bit(name: str, much: dict[str, Any]) -> None:
    rows, more = [random_tokens(30, 1), random_tokens(17, 2)], [random_tokens(9, 3)] * 2
    outputs = []
    for config in (config_of(name, **much), DenseConfig()):
        cache = prefilled(config, rows, [11, 19])
        outputs.append(feed(cache.kinds[0], cache.layers[0], [30, 17], more, [1] * 9)[1])
    assert all(np.array_equal(x, y) for x, y in zip(*outputs, strict=True))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "give ratio or budget, one of them"),
        ({"ratio": 0.5, "budget": 9}, "give ratio or budget, one of them"),
        ({"ratio": 0.0}, "greater than 0"),
        ({"ratio": 1.5}, "less than or equal to 1"),
        ({"ratio": True}, "needs a number"),
        ({"budget": 64}, "nothing to choose beside sinks=0 and window=64; use 65 or more"),
        ({"budget": 20, "window": 16, "sinks": 4}, "sinks=4 and window=16; use 21 or more"),
        ({"budget": 99, "image_ratio": 0.5}, "image_ratio goes with ratio"),
        ({"ratio": 0.5, "pool": 4}, "pool=4 is even; use 3 or 5"),
        ({"kind": "pyramidkv", "ratio": 0.5, "image_ratio": 0.5}, "use snapkv"),
        ({"ratio": 0.5, "keys": {"kind": "int8"}}, "'plain', 'affine', 'mxfp4'"),
    ],
)
def test_bad_budgets_say_what_would_work(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ADAPTER.validate_python({"kind": "snapkv", **config})


def test_layers_that_cannot_be_scored_or_stored_so_are_named() -> None:
    hidden = SHAPE._replace(num_heads=None)
    for name in ("snapkv", "pyramidkv", "h2o", "tova"):
        said = rf"^cache\.kind: {name} chooses .* use knorm, keydiff or random \(layer 0\)"
        with pytest.raises(VlmkitError, match=said):
            build_cache(config_of(name, ratio=0.5), [hidden], 1, mx.float32)
    for name in ("knorm", "keydiff", "random"):
        build_cache(config_of(name, ratio=0.5), [hidden], 1, mx.float32)
    config = config_of("knorm", ratio=0.5, values={"kind": "affine", "group_size": 64})
    with pytest.raises(
        VlmkitError, match=r"^cache\.values\.group_size: 64 does not .* \(layer 1\)"
    ):
        build_cache(config, [KVSpec(1, 64, 64), KVSpec(1, 32, 32)], 1, mx.float32)


def test_a_finished_prompt_takes_no_tokens_back() -> None:
    cache = prefilled(config_of("knorm", ratio=0.5), [random_tokens(20, 0)], [20])
    assert trim_rows(cache, (20,)) == cache
    with pytest.raises(VlmkitError, match="cache: knorm has finished its prompt, so it cannot"):
        trim_rows(cache, (19,))
    running = build_cache(config_of("tova", ratio=0.5), [SHAPE], 1, mx.float32)
    with pytest.raises(VlmkitError, match="cache: tova notes what its prompt's queries see"):
        trim_rows(running._replace(lengths=(7,)), (5,))

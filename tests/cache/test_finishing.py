"""What is read after the end of a prompt, by rows alone, together, cut, branched and joined."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.cache.formulas import kept_by
from tests.cache.kinds import (
    CONFIGS,
    FINISHING,
    NUM_HEADS,
    SCALE,
    SHAPE,
    Tokens,
    feed,
    kind_of,
    random_tokens,
)
from tests.cache.moves import joined
from tests.cache.test_laws import assert_close, seeds, widths_for
from tests.effort import scaled
from vlmkit.cache import PyramidKVConfig, build_cache, describe_cache, hold_row, join_rows
from vlmkit.cache.codec.build import build_codec
from vlmkit.cache.eviction.pyramidkv import layer_budget
from vlmkit.contracts.interface import CacheKind, KVSpec, PromptShape, Pytree
from vlmkit.errors import VlmkitError

IMAGES = ((2, 7), (8, 10))
each_kind = pytest.mark.parametrize("name", FINISHING)


def finished(kind: CacheKind, rows: list[Tokens], widths: list[int]) -> Pytree:
    """A state after these prompts."""
    assert kind.finishing is not None
    empty = kind.init(len(rows), SHAPE, mx.float32)
    state, _ = feed(kind, empty, [0] * len(rows), rows, widths)
    return kind.finishing.finish(state, [PromptShape(_length(row), IMAGES) for row in rows])


def _length(row: Tokens) -> int:
    return row.keys.shape[1]


def answers(name: str, prompt: Tokens, more: Tokens) -> NDArray[np.float64]:
    """What each query after the prompt must get, in float64."""
    config, count, whole = CONFIGS[name], _length(prompt), joined([prompt, more])
    total = _length(whole)
    places = np.arange(total)
    kept = _kept(config, prompt)
    outputs = []
    for head in range(NUM_HEADS):
        own = head // (NUM_HEADS // SHAPE.num_kv_heads)
        keys, values = _stored(config, whole, own)
        computed = whole.keys[own].astype(np.float64), whole.values[own].astype(np.float64)
        for query in range(count, total):
            seen = np.array([*kept[own], *range(count, query + 1)])
            recent = (places > query - getattr(config, "recent", 0))[seen, None]
            k, v = (
                np.where(recent, full[seen], own_side[seen])
                for full, own_side in zip(computed, (keys, values), strict=True)
            )
            scores = SCALE * k @ whole.queries[head, query].astype(np.float64)
            weights = np.exp(scores - scores.max())
            outputs.append(weights @ v / weights.sum())
    return np.array(outputs).reshape(NUM_HEADS, total - count, -1)


def _kept(config: Any, prompt: Tokens) -> list[list[int]]:
    count = _length(prompt)
    if config.kind in ("quantized", "modality"):
        return [list(range(count))] * SHAPE.num_kv_heads
    if isinstance(config, PyramidKVConfig):
        config = config.model_copy(update={"budget": layer_budget(config, count, 0, 1)})
    return kept_by(config, prompt, PromptShape(count, IMAGES))


def _stored(config: Any, whole: Tokens, head: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Keys and values of a head as stored."""
    if config.kind != "modality":
        return _coded(config, whole, head)
    image, text = (_coded(side, whole, head) for side in (config.image, config.text))
    is_image = np.zeros((_length(whole), 1), bool)
    for start, end in IMAGES:
        is_image[start:end] = True
    keys, values = (np.where(is_image, *pair) for pair in zip(image, text, strict=True))
    return keys, values


def _coded(config: Any, whole: Tokens, head: int) -> tuple[NDArray[Any], NDArray[Any]]:
    sides = (config.keys, whole.keys), (config.values, whole.values)
    keys, values = (
        np.array(codec.decode(codec.encode(mx.array(x)[None]), mx.float32))[0, head]
        for codec, x in ((build_codec(side), x) for side, x in sides)
    )
    return keys.astype(np.float64), values.astype(np.float64)


@each_kind
@settings(max_examples=scaled(8))
@given(
    data=st.data(), counts=st.lists(st.integers(11, 30), min_size=1, max_size=3),
    more=st.integers(1, 12), seed=seeds,
)  # fmt: skip
def test_rows_in_any_chunks_equal_the_reference(
    name: str, data: st.DataObject, counts: list[int], more: int, seed: int
) -> None:
    kind = kind_of(name)
    rows = [random_tokens(count, seed + place) for place, count in enumerate(counts)]
    rests = [random_tokens(more, seed + 9 + place) for place in range(len(rows))]
    state = finished(kind, rows, data.draw(widths_for(max(counts))))
    _, outputs = feed(kind, state, counts, rests, data.draw(widths_for(more)))
    for row, rest, output in zip(rows, rests, outputs, strict=True):
        assert_close(output, answers(name, row, rest))


@each_kind
@settings(max_examples=scaled(5))
@given(
    counts=st.lists(st.integers(11, 30), min_size=3, max_size=3),
    order=st.lists(st.integers(0, 2), min_size=1, max_size=4), seed=seeds,
)  # fmt: skip
def test_rows_joined_branched_and_selected_go_on_as_before(
    name: str, counts: list[int], order: list[int], seed: int
) -> None:
    kind = kind_of(name)
    rows = [random_tokens(count, seed + place) for place, count in enumerate(counts)]
    first, rests = random_tokens(3, seed + 7), [random_tokens(8, seed + 8 + n) for n in order]
    states = [finished(kind, [row], [_length(row)]) for row in rows]
    states[0], _ = feed(kind, states[0], [counts[0]], [first], [1, 1, 1])
    rows[0] = joined([rows[0], first])
    seen = [_length(row) for row in rows]
    state = kind.select(kind.join(states, [[count] for count in seen]), order, seen)
    again, outputs = feed(kind, state, [seen[n] for n in order], rests, [1, 4, 3])
    for place, rest, output in zip(order, rests, outputs, strict=True):
        prompt, so_far = rows[place].part(0, counts[place]), rows[place].part(counts[place], 99)
        wanted = answers(name, prompt, joined([so_far, rest]))
        assert_close(output, wanted[:, _length(so_far) :])
    _, replay = feed(kind, state, [seen[n] for n in order], rests, [1, 4, 3])
    assert all(np.array_equal(x, y) for x, y in zip(outputs, replay, strict=True))
    assert kind.num_bytes(again) > 0


@each_kind
def test_bytes_said_are_those_of_the_arrays(name: str) -> None:
    kind, row, prompt = kind_of(name), random_tokens(30, 1), PromptShape(30, IMAGES)
    state = finished(kind, [row], [30])
    state, _ = feed(kind, state, [30], [random_tokens(10, 2)], [10])
    held = hold_row(kind, SHAPE, mx.float32, prompt, 40)
    parts = [state.stored]
    if name == "modality":
        parts = [state.stored.images, state.stored.text]
    if name == "after_prefill":
        assert held.num_quantized == 40 - CONFIGS[name].recent
        return  # tokens in two forms are counted in a test of their own
    sizes = [7, 33] if name == "modality" else [held.num_tokens]
    for side, said in (("keys", held.key_bytes), ("values", held.value_bytes)):
        arrays = [(x, n) for part, n in zip(parts, sizes, strict=True) for x in getattr(part, side)]
        assert said == sum(x[:, :, :n].nbytes for x, n in arrays)
    assert held.num_tokens == (40 if name == "modality" else 10 + held.num_first)


@each_kind
def test_a_running_prompt_cannot_be_joined_to_a_finished_one(name: str) -> None:
    cache = build_cache(CONFIGS[name], [SHAPE], 1, mx.float32)
    kind = cache.kinds[0]
    assert isinstance(kind, CacheKind)
    done = cache._replace(layers=(finished(kind, [random_tokens(12, 0)], [12]),), lengths=(12,))
    with pytest.raises(VlmkitError, match="the prompts of some are still running"):
        join_rows([cache, done])


@each_kind
def test_a_layer_with_a_sliding_window_is_left_alone_and_said_to_be(name: str) -> None:
    sliding = SHAPE._replace(window=9)
    specs: list[KVSpec] = [SHAPE, sliding, SHAPE]
    cache = build_cache(CONFIGS[name], specs, 1, mx.float32)
    assert isinstance(cache.kinds[1], CacheKind)
    assert cache.kinds[1].finishing is None
    assert cache.kinds[1].hold(sliding, mx.float32, 99).num_tokens == 9
    facts = describe_cache(CONFIGS[name], specs, mx.float32)
    reason = f"sliding window: {CONFIGS[name].kind} leaves its 9 tokens as computed"
    assert facts["skipped_layers"] == [{"layers": [1], "reason": reason}]


def test_text_alone_and_images_alone_are_stored_each_its_way() -> None:
    kind, row = kind_of("modality"), random_tokens(12, 3)
    assert kind.finishing is not None
    for images, quantized in (((), 12), (((0, 12),), 12)):
        state, _ = feed(kind, kind.init(1, SHAPE, mx.float32), [0], [row], [12])
        state = kind.finishing.finish(state, [PromptShape(12, images)])
        state, [output] = feed(kind, state, [12], [random_tokens(3, 4)], [1, 1, 1])
        assert np.isfinite(output).all()
        assert state.stored.num_images == (12 if images else 0,)
        held = kind.finishing.hold(SHAPE, mx.float32, PromptShape(12, images), 12)
        assert held.num_quantized == quantized

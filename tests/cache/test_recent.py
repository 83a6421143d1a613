"""Recent tokens and first queries as computed: what is held, counted, and can be taken back."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.cache.kinds import CONFIGS, SHAPE, feed, kind_of, random_tokens
from tests.cache.test_trim import filled
from vlmkit.cache import QuantizedConfig, build_cache, trim_rows
from vlmkit.cache.layout import round_up
from vlmkit.contracts.interface import KVSpec
from vlmkit.errors import VlmkitError

RECENT = [name for name in CONFIGS if name.startswith(("recent", "start"))]


@pytest.mark.parametrize("name", RECENT)
@pytest.mark.parametrize("count", [1, 5, 9, 12, 256])
def test_bytes_reported_are_the_bytes_held(name: str, count: int) -> None:
    kind, config = kind_of(name), CONFIGS[name]
    state = kind.init(1, SHAPE, mx.float32)
    state, _ = feed(kind, state, [0], [random_tokens(count, 0)], [1] * count)
    held = kind.hold(SHAPE, mx.float32, count)
    rows_of = {id(part): part.keys[0].shape[2] for part in state}
    slots = round_up(count) if config.max_size is None else config.max_size
    num_full = count if count <= config.start else min(count, config.recent)
    assert rows_of[id(state.stored)] == slots
    assert rows_of[id(state.recent)] >= num_full
    # Slots that hold nothing yet are no bytes of a token.
    own = [
        sum(x.nbytes for x in side) * num_tokens // part.keys[0].shape[2]
        for part, num_tokens in ((state.stored, held.num_tokens), (state.recent, num_full))
        for side in (part.keys, part.values)
    ]
    assert (held.key_bytes, held.value_bytes) == (own[0] + own[2], own[1] + own[3])
    num_quantized = 0 if count <= config.start else held.num_tokens - num_full
    assert held.num_quantized == num_quantized


def test_after_the_start_no_more_than_the_recent_tokens_are_held_as_computed() -> None:
    config = QuantizedConfig(keys={"kind": "nvfp4"}, values={"kind": "nvfp4"}, recent=4, start=40)
    kind = build_cache(config, [SHAPE], 1, mx.float32).kinds[0]
    state = kind.init(1, SHAPE, mx.float32)
    state, _ = feed(kind, state, [0], [random_tokens(40, 0)], [40])
    assert state.recent.keys[0].shape[2] == 40
    state, _ = feed(kind, state, [40], [random_tokens(1, 0)], [1])
    assert state.recent.keys[0].shape == (1, 2, 4, 32)


@pytest.mark.parametrize("window", [3, 9])
def test_a_sliding_window_holds_no_more_than_itself(window: int) -> None:
    spec = KVSpec(2, 32, 32, window=window)
    held = build_cache(CONFIGS["recent"], [spec], 1, mx.float32).kinds[0].hold(spec, mx.float32, 99)
    assert held.num_tokens == window
    assert held.num_quantized == max(window - CONFIGS["recent"].recent, 0)


def test_a_row_goes_back_only_while_its_tokens_are_held_as_computed() -> None:
    cache = filled(CONFIGS["recent"], [random_tokens(5, 0), random_tokens(8, 1)], [8])
    assert trim_rows(cache, (2, 8)).lengths == (2, 8)
    with pytest.raises(VlmkitError, match=r"of the 8 tokens it saw it holds the last 5 .* to 7;"):
        trim_rows(cache, (5, 7))
    cache = filled(CONFIGS["start"], [random_tokens(20, 0)], [20])
    assert trim_rows(cache, (9,)).lengths == (9,)
    with pytest.raises(VlmkitError, match="cannot go back to 8"):
        trim_rows(cache, (8,))

"""Whole blocks stored, the rest as computed: what is held, and what can be taken back."""

from __future__ import annotations

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.kinds import CONFIGS, SHAPE, feed, kind_of, random_tokens
from tests.cache.test_laws import lengths, seeds, widths_for
from tests.cache.test_trim import assert_goes_on, filled
from tests.effort import scaled
from vlmkit.cache import KVarNConfig, describe_cache, trim_rows
from vlmkit.errors import VlmkitError

SIZE = CONFIGS["kvarn"].block_size
BLOCK_BYTES = 2 * (8 * 32 * 4 // 8 + 2 * (2 * 32 + 8))  # of the keys, two heads


@settings(max_examples=scaled(15))
@given(data=st.data(), counts=st.lists(lengths, min_size=1, max_size=3), seed=seeds)
def test_it_goes_back_to_the_edge_of_any_block_and_within_the_last(
    data: st.DataObject, counts: list[int], seed: int
) -> None:
    rows = [random_tokens(count, seed + row) for row, count in enumerate(counts)]
    cache = filled(CONFIGS["kvarn"], rows, data.draw(widths_for(max(counts))))
    kept = [
        data.draw(st.integers(0, count // SIZE).map(lambda n: n * SIZE))
        if data.draw(st.booleans())
        else data.draw(st.integers(count - count % SIZE, count))
        for count in counts
    ]
    assert_goes_on(cache, CONFIGS["kvarn"], rows, kept, data)


def test_it_cannot_go_back_into_a_block() -> None:
    cache = filled(CONFIGS["kvarn"], [random_tokens(20, 0)], [20])
    with pytest.raises(
        VlmkitError, match=r"its first 16 tokens in blocks of 8, .* back to 5 of 20"
    ):
        trim_rows(cache, [5])


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 30])
def test_what_is_held_is_whole_blocks_and_the_rest(count: int) -> None:
    held = kind_of("kvarn").hold(SHAPE, mx.float16, count)
    whole, rest = divmod(count, SIZE)
    assert (held.num_tokens, held.num_quantized) == (count, whole * SIZE)
    assert held.key_bytes == whole * BLOCK_BYTES + rest * 2 * 32 * 2


def test_decoding_keeps_no_more_than_a_block_as_computed() -> None:
    kind = kind_of("kvarn")
    state, _ = feed(kind, kind.init(1, SHAPE, mx.float32), [0], [random_tokens(250, 0)], [250])
    assert state.recent_keys.shape[2] == 250 + SIZE - 1
    state, _ = feed(kind, state, [250], [random_tokens(1, 0)], [1])
    assert state.recent_keys.shape == (1, 2, SIZE, 32)
    stored = [*state.keys, *state.values, state.recent_keys, state.recent_values]
    assert kind.num_bytes(state) == sum(x.nbytes for x in stored) + 2 * 4
    assert sum(x.nbytes for x in state.keys) == 256 // SIZE * BLOCK_BYTES


def test_bits_are_described_with_scales() -> None:
    facts = describe_cache(KVarNConfig(), [SHAPE._replace(key_dim=128, value_dim=128)], mx.float16)
    assert facts["key_bits_per_element"] == 4 + 3 * 16 / 128
    assert facts["value_bits_per_element"] == 2 + 3 * 16 / 128

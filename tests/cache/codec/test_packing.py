"""Packed codes come back as they were, and take the bits that they should."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from vlmkit.cache.codec.packing import MAX_BITS, pack, packed_size, unpack, word_table


@pytest.mark.parametrize("bits", range(1, MAX_BITS + 1))
@settings(max_examples=scaled(20))
@given(shape=st.lists(st.integers(0, 3), max_size=2), count=st.integers(1, 70), seed=st.integers(0))
def test_what_is_packed_is_unpacked(bits: int, shape: list[int], count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (*shape, count), np.uint8)
    packed = pack(mx.array(codes), bits)
    assert packed.dtype == mx.uint8
    assert packed.shape == (*shape, packed_size(count, bits))
    table = word_table(mx.arange(2**bits, dtype=mx.uint8), bits)
    assert np.array_equal(np.array(unpack(packed, table, bits, count)), codes)


@pytest.mark.parametrize("bits", range(1, MAX_BITS + 1))
def test_the_stream_has_low_bits_first(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 24)
    number = sum(int(code) << (i * bits) for i, code in enumerate(codes))
    packed = bytes(np.array(pack(mx.array(codes.astype(np.uint8)), bits)))
    assert packed == number.to_bytes(3 * bits, "little")

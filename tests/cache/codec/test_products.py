"""Attention over affine codes as they are stored is attention over what they decode to."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from vlmkit.backend.attention import matmul_attention
from vlmkit.backend.codes import MOST_QUERIES, describe_codes, reads_codes
from vlmkit.cache.codec.affine import BITS, affine_codec
from vlmkit.cache.compose import read
from vlmkit.cache.storage import Storage, Stored


def stored(bits: int, group_size: int, num_slots: int) -> tuple[Storage, Stored, Stored]:
    codec = affine_codec(bits, group_size)
    keys, values = (mx.random.normal((2, 3, num_slots, 64), key=mx.random.key(n)) for n in (1, 2))
    return Storage(codec, codec), codec.encode(keys), codec.encode(values)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("num_queries", "heads"), [(1, 3), (1, 12), (4, 6)])
def test_products_are_attention_over_decoded(bits: int, num_queries: int, heads: int) -> None:
    storage, keys, values = stored(bits, 32, 17)
    assert reads_codes(num_queries * heads // 3, mx.float32)
    queries = mx.random.normal((2, heads, num_queries, 64), key=mx.random.key(3))
    mask = mx.arange(17) <= 17 - num_queries + mx.arange(num_queries)[:, None]
    mask = mx.concatenate([mask[None], (mask & (mx.arange(17) > 2))[None]])[:, None]
    plain = [storage.keys.decode(keys, mx.float32), storage.values.decode(values, mx.float32)]
    for seen in (mask, None):
        found = read(matmul_attention, storage, queries, keys, values, seen, 0.125)
        wanted = matmul_attention(queries, *plain, seen, 0.125)
        np.testing.assert_allclose(np.array(found), np.array(wanted), rtol=1e-5, atol=2e-6)


def test_many_queries_decode() -> None:
    called = []

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        called.append(dtype)
        return affine_codec(4, 32).decode(stored, dtype)

    storage, keys, values = stored(4, 32, 5)
    storage = Storage(storage.keys._replace(decode=decode), storage.values)
    few, many = (mx.ones((2, 3, n, 64)) for n in (MOST_QUERIES["cpu"], MOST_QUERIES["cpu"] + 1))
    read(matmul_attention, storage, few, keys, values, None, 1.0)
    assert not called
    read(matmul_attention, storage, many, keys, values, None, 1.0)
    assert called == [mx.float32]


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_in_half_precision_one_query_gets_what_it_gets_among_many(dtype: mx.Dtype) -> None:
    storage, keys, values = stored(8, 32, 40)
    queries = mx.random.normal((2, 3, 2 * MOST_QUERIES["cpu"], 64), key=mx.random.key(3))
    many = read(matmul_attention, storage, queries.astype(dtype), keys, values, None, 0.125)
    one = read(
        matmul_attention, storage, queries[:, :, :1].astype(dtype), keys, values, None, 0.125
    )
    ours, theirs = (np.array(x.astype(mx.float32)) for x in (one[:, :, 0], many[:, :, 0]))
    np.testing.assert_allclose(ours, theirs, atol=2**-9 if dtype == mx.float16 else 2**-7)


def test_decoded_in_float32_is_scale_times_code_plus_bias() -> None:
    codec = affine_codec(8, 32)
    x = mx.random.normal((1, 1, 1, 32), key=mx.random.key(0))
    codes, scales, biases = codec.encode(x)
    numbers = np.array(codes).view(np.uint8).astype(np.float64)
    exact = numbers * np.array(scales).astype(np.float64) + np.array(biases).astype(np.float64)
    got = np.array(codec.decode((codes, scales, biases), mx.float32))
    np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-6)


def test_how_codes_are_read_is_recorded_for_every_device() -> None:
    assert describe_codes("metal") == "products up to 8 queries a head"
    assert describe_codes("cuda") == "decoded"

"""Attention against plain numpy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from vlmkit.backend.attention import BLOCK_SCORES, Attention, fused_attention, matmul_attention
from vlmkit.backend.forms import make_forms

POLYNOMIAL = [
    make_forms(
        attention="matmul", activations="polynomial", on_gpu=False, compiled=compiled, metal=False
    ).attention
    for compiled in (False, True)
]
VECTOR_EXP = make_forms(
    attention="matmul",
    activations="native",
    on_gpu=False,
    compiled=False,
    metal=False,
    vector_exp=True,
).attention


LONG = 170  # queries: more than one block of them


@pytest.mark.parametrize("form", [matmul_attention, fused_attention, VECTOR_EXP, *POLYNOMIAL])
@pytest.mark.parametrize("length", [1, 5, LONG])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_attention_equals_numpy(form: Attention, length: int, heads: int, kv_heads: int) -> None:
    rng = np.random.default_rng(length)
    num_keys = length + 409
    assert (length < LONG) or (length > BLOCK_SCORES // (heads * num_keys))
    queries = rng.standard_normal((2, heads, length, 8), np.float32)
    keys, values = rng.standard_normal((2, 2, kv_heads, num_keys, 8), np.float32)
    seen = np.arange(length)[:, None] + np.array([409, 4])[:, None, None, None]
    mask = np.arange(num_keys) <= seen
    output = form(*map(mx.array, (queries, keys, values, mask)), 0.5)
    wide_keys, wide_values = (
        np.repeat(x.astype(np.float64), heads // kv_heads, axis=1) for x in (keys, values)
    )
    weights = np.exp(np.where(mask, 0.5 * queries @ wide_keys.swapaxes(2, 3), -np.inf))
    desired = weights / weights.sum(axis=-1, keepdims=True) @ wide_values
    # mx.exp itself is exact to 4e-6 relative
    np.testing.assert_allclose(np.array(output), desired, atol=5e-6, rtol=5e-6)


def test_scores_are_float32_whatever_the_dtype() -> None:
    # In half precision 200 * 200 * 64 overflows and the scores 2048 and 2049 are equal.
    queries = mx.full((1, 1, 1, 64), 200.0, mx.float16)
    keys = mx.full((1, 1, 2, 64), 200.0, mx.float16)
    keys[0, 0, 1, 0] = 200.125
    values = mx.array([[[[0.0] * 64, [1.0] * 64]]], mx.float16)
    output = matmul_attention(queries, keys, values, None, 1.0)
    assert output.dtype == mx.float16
    assert output.min().item() == 1.0

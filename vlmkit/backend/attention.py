"""Scaled dot-product attention over keys and values of fewer heads than the queries."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

BLOCK_SCORES = 2**18
"""Scores of one row that exist at a time: 1 MiB, which stays in a processor's cache."""

MIN_QUERIES = 16
"""Queries per block, however many keys there are."""

Softmax = Callable[[mx.array], mx.array]
Attention = Callable[[mx.array, mx.array, mx.array, "mx.array | None", float], mx.array]
"""(queries, keys, values, mask, scale) -> what the queries read"""


def softmax(scores: mx.array) -> mx.array:
    """Return the softmax of the last axis as MLX computes it, in float32."""
    return mx.softmax(scores, axis=-1, precise=True)


def fused_attention(
    queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None, scale: float
) -> mx.array:
    """Attend as :func:`matmul_attention` does, by MLX's own kernel."""
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


def matmul_attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    scale: float,
    *,
    softmax: Softmax = softmax,
) -> mx.array:
    """Attend with grouped queries: softmax(scale * q k^T) v, scores in float32.

    On a CPU two matrix products are about twice as fast as MLX's own kernel. What a row reads does
    not depend on the other rows.

    Args:
        queries: [B, H, L, D].
        keys: [B, H_kv, S, D]; H is a multiple of H_kv, and query head h reads head h // (H/H_kv).
        values: [B, H_kv, S, D_v].
        mask: bool, broadcastable to [B, 1, L, S]; True = visible. None = all is visible.
        scale: factor of the scores, usually 1/sqrt(D).
        softmax: of the last axis, float32.

    Returns:
        [B, H, L, D_v] in the dtype of the queries.

    Example:
        >>> q = k = v = mx.ones((1, 2, 1, 4))
        >>> matmul_attention(q, k, v, None, 0.5).tolist()[0][0][0]
        [1.0, 1.0, 1.0, 1.0]

    Reference: Vaswani et al. 2017, arXiv 1706.03762; Ainslie et al. 2023, arXiv 2305.13245.
    """
    dtype, (_, heads, length, _), num_keys = queries.dtype, queries.shape, keys.shape[2]
    queries, keys, values = (x.astype(mx.float32) for x in (queries * scale, keys, values))
    step = max(MIN_QUERIES, BLOCK_SCORES // max(heads * num_keys, 1))
    if length > step:  # each block's products would copy parts of wider rows anew
        keys, values = mx.contiguous(keys), mx.contiguous(values)
    blocks = [
        _attend_block(
            queries[:, :, start : start + step],
            keys,
            values,
            None if mask is None else _rows(mask, start, start + step),
            softmax,
        )
        for start in range(0, length, step)
    ]
    output = blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=2)
    return output.astype(dtype)


def _rows(mask: mx.array, start: int, stop: int) -> mx.array:
    return mask if mask.shape[-2] == 1 else mask[..., start:stop, :]


def _attend_block(
    queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None, softmax: Softmax
) -> mx.array:
    batch, heads, length, dim = queries.shape
    kv_heads, num_keys = keys.shape[1:3]
    # The queries of one group share their keys: fold them into the rows of one product.
    folded = queries.reshape(batch, kv_heads, -1, dim)
    scores = (folded @ keys.swapaxes(-1, -2)).reshape(batch, kv_heads, -1, length, num_keys)
    if mask is not None:
        scores = mx.where(mask[:, :, None], scores, -mx.inf)
    weights = softmax(scores).reshape(batch, kv_heads, -1, num_keys)
    return (weights @ values).reshape(batch, heads, length, -1)

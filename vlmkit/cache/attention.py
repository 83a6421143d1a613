"""Scaled dot-product attention over keys and values of fewer heads than the queries."""

from __future__ import annotations

import mlx.core as mx

QUERY_BLOCK = 512
"""Queries per score matrix: bounds its memory at ``num_heads * 512 * num_keys`` floats."""


def attention(
    queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None, scale: float
) -> mx.array:
    """Attend with grouped queries: softmax(scale * q k^T) v, scores in float32.

    Args:
        queries: [B, H, L, D].
        keys: [B, H_kv, S, D]; H is a multiple of H_kv, and query head h reads head h // (H/H_kv).
        values: [B, H_kv, S, D_v].
        mask: bool, broadcastable to [B, 1, L, S]; True = visible. None = all is visible.
        scale: factor of the scores, usually 1/sqrt(D).

    Returns:
        [B, H, L, D_v] in the dtype of the queries.

    Example:
        >>> q = k = v = mx.ones((1, 2, 1, 4))
        >>> attention(q, k, v, None, 0.5).tolist()[0][0][0]
        [1.0, 1.0, 1.0, 1.0]

    Reference: Vaswani et al. 2017, arXiv 1706.03762; Ainslie et al. 2023, arXiv 2305.13245.
    """
    if mx.default_device() == mx.gpu:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    dtype, length = queries.dtype, queries.shape[2]
    queries, keys, values = (x.astype(mx.float32) for x in (queries * scale, keys, values))
    blocks = [
        _attend_block(
            queries[:, :, start : start + QUERY_BLOCK],
            keys,
            values,
            None if mask is None else mask[..., start : start + QUERY_BLOCK, :],
        )
        for start in range(0, length, QUERY_BLOCK)
    ]
    output = blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=2)
    return output.astype(dtype)


def _attend_block(
    queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None
) -> mx.array:
    batch, heads, length, dim = queries.shape
    kv_heads, num_keys = keys.shape[1:3]
    # The queries of one group share their keys: fold them into the rows of one product.
    folded = queries.reshape(batch, kv_heads, -1, dim)
    scores = (folded @ keys.swapaxes(-1, -2)).reshape(batch, kv_heads, -1, length, num_keys)
    if mask is not None:
        scores = mx.where(mask[:, :, None], scores, -mx.inf)
    weights = mx.softmax(scores, axis=-1).reshape(batch, kv_heads, -1, num_keys)
    return (weights @ values).reshape(batch, heads, length, -1)

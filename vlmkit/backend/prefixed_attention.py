"""Attention of rows that begin alike: one copy of what they share, and each row's own rest."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from vlmkit.backend.attention import BLOCK_SCORES, MIN_QUERIES

Powers = Callable[[mx.array, mx.array], mx.array]
"""(scores, their largest) -> exp(scores - largest), float32"""

PrefixedAttention = Callable[
    [mx.array, mx.array, mx.array, mx.array, mx.array, "mx.array | None", float], mx.array
]
"""(queries, prefix keys, prefix values, keys, values, mask, scale) -> what the queries read"""


def powers(scores: mx.array, top: mx.array) -> mx.array:
    """Return ``exp(scores - top)`` as MLX computes it."""
    return mx.exp(scores - top)


def prefixed_attention(
    queries: mx.array,
    prefix_keys: mx.array,
    prefix_values: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    scale: float,
    *,
    powers: Powers = powers,
) -> mx.array:
    """Attend to a prefix that all rows share and to what each has behind it, in one softmax.

    The queries of all rows are folded into one product with the prefix, which is read once however
    many rows there are. The result is that of :func:`vlmkit.backend.attention.matmul_attention`
    over the prefix repeated for each row, within float rounding.

    Args:
        queries: [B, H, L, D], of tokens behind the prefix.
        prefix_keys: [1, H_kv, P, D], P >= 1: all of them are visible.
        prefix_values: [1, H_kv, P, D_v].
        keys: [B, H_kv, S, D], S >= 1.
        values: [B, H_kv, S, D_v].
        mask: bool, broadcastable to [B, 1, L, S], of ``keys``; True = visible. None = all are.
        scale: factor of the scores, usually 1/sqrt(D).
        powers: the exponentials, float32.

    Returns:
        [B, H, L, D_v] in the dtype of the queries.

    Example:
        >>> q = k = v = mx.ones((3, 2, 1, 4))
        >>> prefixed_attention(q, k[:1], 3 * v[:1], k, v, None, 0.5)[2, 1].tolist()
        [[2.0, 2.0, 2.0, 2.0]]

    Reference: Juravsky et al. 2024, "Hydragen: high-throughput LLM inference with shared prefixes",
    arXiv 2402.05099.
    """
    dtype, (_, heads, length, _) = queries.dtype, queries.shape
    queries, prefix_keys, prefix_values, keys, values = (
        x.astype(mx.float32) for x in (queries * scale, prefix_keys, prefix_values, keys, values)
    )
    num_keys = prefix_keys.shape[2] + keys.shape[2]
    step = max(MIN_QUERIES, BLOCK_SCORES // max(heads * num_keys, 1))
    blocks = []
    for start in range(0, length, step):
        stop = start + step
        whole = mask is None or mask.shape[-2] == 1
        part = mask if whole or mask is None else mask[..., start:stop, :]
        block = queries[:, :, start:stop]
        blocks.append(_attend_block(block, prefix_keys, prefix_values, keys, values, part, powers))
    output = blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=2)
    return output.astype(dtype)


def _attend_block(
    queries: mx.array,
    prefix_keys: mx.array,
    prefix_values: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    powers: Powers,
) -> mx.array:
    batch, heads, length, dim = queries.shape
    kv_heads = keys.shape[1]
    queries = queries.reshape(batch, kv_heads, -1, dim)
    num = queries.shape[2]  # queries of a row that read one head of keys

    def fold(x: mx.array) -> mx.array:
        return x.swapaxes(0, 1).reshape(1, kv_heads, batch * num, -1)

    def unfold(x: mx.array) -> mx.array:
        return x.reshape(kv_heads, batch, num, -1).swapaxes(0, 1)

    first = fold(queries) @ prefix_keys.swapaxes(-1, -2)
    second = queries @ keys.swapaxes(-1, -2)
    if mask is not None:
        by_query = second.reshape(batch, kv_heads, -1, length, keys.shape[2])
        second = mx.where(mask[:, :, None], by_query, -mx.inf).reshape(second.shape)
    top = mx.maximum(
        unfold(mx.max(first, axis=-1, keepdims=True)), mx.max(second, axis=-1, keepdims=True)
    )
    first, second = powers(first, fold(top)), powers(second, top)
    total = unfold(mx.sum(first, axis=-1, keepdims=True)) + mx.sum(second, axis=-1, keepdims=True)
    output = (unfold(first @ prefix_values) + second @ values) / total
    return output.reshape(batch, heads, length, -1)

"""What eviction methods note of a prompt's queries while it runs."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.cache.finishing import Noted, Observer
from vlmkit.cache.layout import token_numbers
from vlmkit.contracts.interface import KVSpec, Span

_BLOCK_SCORES = 2**20
"""Scores of one row that exist at a time: 4 MiB."""


def last_queries(count: int) -> Observer:
    """Keep the last queries of each row, times the scale: float32 [B, H, count, D].

    A row that has fewer has zeros before them.
    """

    def init(batch: int, spec: KVSpec) -> Noted:
        assert spec.num_heads is not None
        return (mx.zeros((batch, spec.num_heads, count, spec.key_dim)),)

    def note(noted: Noted, queries: mx.array, keys: mx.array, span: Span, scale: float) -> Noted:
        both = mx.concatenate([noted[0], queries.astype(mx.float32) * scale], axis=2)
        if set(span.lengths) == {span.width}:
            return (both[:, :, span.width :],)
        index = mx.array(span.lengths, mx.int32)[:, None] + mx.arange(count, dtype=mx.int32)
        return (mx.take_along_axis(both, index[:, None, :, None], axis=2),)

    return Observer(init, note)


def summed_attention() -> Observer:
    """Sum the attention that each token gets from all queries, mean over the heads of a group.

    float32 [B, H_kv, S], zero beyond a row's tokens.
    """

    def init(batch: int, spec: KVSpec) -> Noted:
        return (mx.zeros((batch, spec.num_kv_heads, 0)),)

    def note(noted: Noted, queries: mx.array, keys: mx.array, span: Span, scale: float) -> Noted:
        num_keys = max(span.starts) + span.width
        keys = keys[:, :, :num_keys].astype(mx.float32)
        numbers = token_numbers(span)
        is_valid = numbers < mx.array(span.ends, mx.int32)[:, None]
        missing = num_keys - noted[0].shape[2]
        total = mx.pad(noted[0], [(0, 0), (0, 0), (0, max(missing, 0))])
        step = max(_BLOCK_SCORES // (queries.shape[1] * num_keys), 1)
        for start in range(0, span.width, step):
            part = slice(start, start + step)
            own = _attention(queries[:, :, part].astype(mx.float32) * scale, keys, numbers[:, part])
            own = mx.where(is_valid[:, None, None, part, None], own, 0.0)
            seen = own.sum(axis=3).mean(axis=2)
            total = total + mx.pad(seen, [(0, 0), (0, 0), (0, total.shape[2] - num_keys)])
        return (total,)

    return Observer(init, note)


def _attention(queries: mx.array, keys: mx.array, numbers: mx.array) -> mx.array:
    """Weights [B, H_kv, G, L, S] of queries of these numbers [B, L], each after its own token."""
    (batch, heads, length, dim), (_, kv_heads, num_keys, _) = queries.shape, keys.shape
    folded = queries.reshape(batch, kv_heads, -1, dim)
    scores = folded @ keys.swapaxes(-1, -2)
    scores = scores.reshape(batch, kv_heads, heads // kv_heads, length, num_keys)
    is_seen = mx.arange(num_keys, dtype=mx.int32) <= numbers[:, None, None, :, None]
    return mx.softmax(mx.where(is_seen, scores, -mx.inf), axis=-1, precise=True)


def window_attention(queries: mx.array, keys: mx.array, ends: mx.array, used: mx.array) -> mx.array:
    """Return the mean attention of each row's last queries.

    Args:
        queries: float32 [B, H, w, D], from :func:`last_queries`.
        keys: [B, H_kv, S, D].
        ends: int32 [B], tokens per row.
        used: int32 [B], of the w queries the last ones that count, at least 1.

    Returns:
        float32 [B, H_kv, G, S]: of each head of a group, what the tokens get.
    """
    count = queries.shape[2]
    back = mx.arange(count, dtype=mx.int32) - count
    numbers = ends[:, None] + back
    weights = _attention(queries, keys.astype(mx.float32), mx.maximum(numbers, 0))
    is_used = back >= -used[:, None]
    weights = mx.where(is_used[:, None, None, :, None], weights, 0.0)
    return weights.sum(axis=3) / used[:, None, None, None]

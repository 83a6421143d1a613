"""The tokens of each row and head with the best scores, brought together."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from vlmkit.cache.eviction.budget import Counts
from vlmkit.contracts.interface import PromptShape


def choose(scores: mx.array, prompts: Sequence[PromptShape], counts: Sequence[Counts]) -> mx.array:
    """Return which tokens are kept.

    Args:
        scores: float32 [B, H_kv, S], finite; the larger, the rather kept.
        prompts: of each row.
        counts: what is kept of each.

    Returns:
        int32 [B, H_kv, n], n the most kept of a row: ascending numbers of a row's tokens, behind
        them numbers of no meaning.

    Example:
        >>> prompts, counts = [PromptShape(4)], [Counts(text=2, images=0, sinks=1, window=0)]
        >>> choose(mx.array([[[0.1, 0.4, 0.2, 0.3]]]), prompts, counts).tolist()
        [[[0, 1]]]
    """
    place = mx.arange(scores.shape[2], dtype=mx.int32)
    ends, sinks, window, text, images = (
        mx.array(list(numbers), mx.int32)[:, None]
        for numbers in (
            [prompt.length for prompt in prompts],
            *zip(*((c.sinks, c.window, c.text, c.images) for c in counts), strict=True),
        )
    )
    is_there = place < ends
    is_safe = (place < sinks) | (place >= ends - window)
    scores = mx.where(is_safe[:, None], mx.inf, scores)
    if any(one.images for one in counts):
        is_image = _is_image(scores.shape[2], prompts)
        kept = _best(scores, is_there & ~is_image, text) | _best(
            scores, is_there & is_image, images
        )
    else:
        kept = _best(scores, is_there, text)
    last = mx.where(kept, place, place + scores.shape[2])
    most = max(one.total for one in counts)
    chosen = mx.sort(last, axis=-1)[:, :, :most]
    return mx.minimum(chosen, scores.shape[2] - 1)


def _best(scores: mx.array, group: mx.array, count: mx.array) -> mx.array:
    """Which of a group [B, S] have the ``count`` [B, 1] largest scores: bool [B, H_kv, S]."""
    own = mx.where(group[:, None], scores, -mx.inf)
    ranks = mx.argsort(mx.argsort(-own, axis=-1), axis=-1)
    return (ranks < count[:, None]) & group[:, None]


def _is_image(num_slots: int, prompts: Sequence[PromptShape]) -> mx.array:
    rows = []
    for prompt in prompts:
        row = [False] * num_slots
        for start, end in prompt.images:
            row[start:end] = [True] * (end - start)
        rows.append(row)
    return mx.array(rows)


def gather(x: mx.array, chosen: mx.array) -> mx.array:
    """Return the chosen tokens [B, H_kv, n] of an array [B, H_kv, S, D]."""
    return mx.take_along_axis(x, chosen[..., None], axis=2)

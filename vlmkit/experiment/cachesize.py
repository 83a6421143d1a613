"""The memory of a response's KV cache."""

from __future__ import annotations

from collections.abc import Callable

from vlmkit.cache import CacheConfig, row_held_bytes
from vlmkit.contracts.interface import Model, PromptShape
from vlmkit.experiment.loaded import Loaded


def cache_sizes(loaded: Loaded) -> dict[int, Callable[[PromptShape, int], int]]:
    """Return, by arm, the bytes of a response's KV cache as a function of its prompt and tokens.

    All that the arm keeps for one response: what it is contrasted with, and the beams of a search.
    Tokens that several rows have in common count for each of them.
    """
    sizes = {}
    for batch, method in zip(loaded.group.batches, loaded.methods, strict=True):
        for arm in batch.arms:
            resolved = loaded.resolved[arm][0]
            width = 1 if resolved.search is None else resolved.search.width
            models = [model for model, count in method.parts for _ in range(count)]
            cache = resolved.pipeline.cache
            sizes[arm] = _sum_of([_row_size(cache, model) for model in models], width)
    return sizes


def _row_size(config: CacheConfig, model: Model) -> Callable[[PromptShape, int], int]:
    return row_held_bytes(config, model.layer_specs, model.dtype)


def _sum_of(
    streams: list[Callable[[PromptShape, int], int]], width: int
) -> Callable[[PromptShape, int], int]:
    return lambda prompt, num_tokens: width * sum(one(prompt, num_tokens) for one in streams)

"""SnapKV: keep what the last queries of a prompt look at."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field, model_validator

from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.cache.eviction.kind import Prompts, Score, eviction_kind
from vlmkit.cache.eviction.observers import last_queries, window_attention
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.configbase import Int


class WindowConfig(EvictionConfig):
    """What the methods that look through a prompt's last queries are told."""

    window: Int = Field(
        64, ge=1, description="Last queries that choose; their own tokens are never dropped."
    )
    pool: Int = Field(
        5, ge=1, description="Neighbours, itself included, that a score is averaged over; odd."
    )

    @model_validator(mode="after")
    def _pool_is_odd(self) -> WindowConfig:
        if self.pool % 2 == 0:
            raise ValueError(f"pool={self.pool} is even; use {self.pool - 1} or {self.pool + 1}")
        return self

    def num_window(self, num_kept: int) -> int:
        """Return how many last tokens are never dropped, where the budget allows."""
        return self.window


class SnapKVConfig(WindowConfig):
    """Keep the tokens of a prompt that its last queries look at (arXiv 2404.14469)."""

    kind: Literal["snapkv"] = "snapkv"


def snapkv(config: SnapKVConfig) -> CacheKind:
    """Build the cache: softmax of the last queries, mean over them, pooled, mean over the group.

    Where the budget is not more than sinks and window, fewer queries choose: half of what is kept.

    Example:
        >>> from vlmkit.contracts.interface import KVSpec, PromptShape
        >>> kind = snapkv(SnapKVConfig(ratio=0.25))
        >>> spec, prompt = KVSpec(2, 64, 64, num_heads=4), PromptShape(1000)
        >>> kind.finishing.hold(spec, mx.float16, prompt, 1010).num_tokens
        260

    Reference: Li et al. 2024, arXiv 2404.14469; the mean over a group as in kvpress.
    """
    return eviction_kind(
        config.kind, config, snapkv_score(config.pool), observer=last_queries(config.window)
    )


def snapkv_score(pool: int) -> Score:
    """Return SnapKV's score: what a token and its neighbours get of the window's attention."""

    def score(prompts: Prompts) -> mx.array:
        got = window_attention(prompts.noted[0], prompts.keys, prompts.ends, prompts.window)
        place = mx.arange(got.shape[3], dtype=mx.int32)
        before = place < (prompts.ends - prompts.window)[:, None]
        got = mx.where(before[:, None, None], got, 0.0)  # the window's own tokens lift none
        half = pool // 2
        padded = mx.pad(got, [(0, 0), (0, 0), (0, 0), (half, half)])
        shifted = [padded[..., shift : shift + got.shape[3]] for shift in range(pool)]
        return (sum(shifted, start=mx.zeros_like(got)) / pool).mean(axis=2)

    return score

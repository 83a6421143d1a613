"""TOVA: keep what the last token of a prompt looks at."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx

from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.cache.eviction.kind import Prompts, eviction_kind
from vlmkit.cache.eviction.observers import last_queries, window_attention
from vlmkit.contracts.interface import CacheKind


class TOVAConfig(EvictionConfig):
    """Keep the tokens of a prompt that its last one looks at, alike in all heads."""

    kind: Literal["tova"] = "tova"

    def num_window(self, num_kept: int) -> int:
        """Return how many last tokens are never dropped."""
        return 1


def tova(config: TOVAConfig) -> CacheKind:
    """Build the cache: attention of the last query, mean over all heads.

    Of several ranks each takes the mean over its own heads.

    Example:
        >>> tova(TOVAConfig(ratio=0.5)).name
        'tova'

    Reference: Oren et al. 2024, arXiv 2401.06104.
    """

    def score(prompts: Prompts) -> mx.array:
        got = window_attention(prompts.noted[0], prompts.keys, prompts.ends, prompts.window)
        mean = got.mean(axis=(1, 2), keepdims=False)[:, None]
        return mx.broadcast_to(mean, prompts.keys.shape[:3])

    return eviction_kind(config.kind, config, score, observer=last_queries(1))

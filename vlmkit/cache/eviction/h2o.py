"""H2O: keep what all queries of a prompt looked at most, and the recent tokens."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.cache.eviction.kind import Prompts, eviction_kind
from vlmkit.cache.eviction.observers import summed_attention
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.configbase import Float


class H2OConfig(EvictionConfig):
    """Keep the tokens that got most attention in the prompt, and its last ones (arXiv 2306.14048).

    The attention of the prompt is computed twice.
    """

    kind: Literal["h2o"] = "h2o"
    recent_ratio: Float = Field(
        0.5, ge=0, lt=1, description="Share of what is kept that goes to the last tokens."
    )
    attention: Literal["sum", "mean"] = Field(
        "sum", description="sum: over all queries; mean: over those that see a token."
    )

    def num_window(self, num_kept: int) -> int:
        """Return how many last tokens are never dropped."""
        return int(num_kept * self.recent_ratio)


def h2o(config: H2OConfig) -> CacheKind:
    """Build the cache: attention summed over the queries of the prompt, mean over the group.

    The authors drop a token at every step of the prompt; here it is seen whole first, as in
    kvpress, whose observed attention is ``attention: mean`` with ``recent_ratio: 0``.

    Example:
        >>> from vlmkit.contracts.interface import KVSpec, PromptShape
        >>> held = h2o(H2OConfig(budget=64)).finishing.hold
        >>> held(KVSpec(2, 64, 64, num_heads=4), mx.float16, PromptShape(1000), 1000).num_tokens
        64

    Reference: Zhang et al. 2023, arXiv 2306.14048.
    """

    def score(prompts: Prompts) -> mx.array:
        total = prompts.noted[0][:, :, : prompts.keys.shape[2]]
        if config.attention == "sum":
            return total
        place = mx.arange(total.shape[2], dtype=mx.int32)
        return total / mx.maximum(prompts.ends[:, None] - place, 1)[:, None]

    return eviction_kind(config.kind, config, score, observer=summed_attention())

"""Key norms: keep the tokens with the shortest keys."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx

from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.cache.eviction.kind import Prompts, eviction_kind
from vlmkit.contracts.interface import CacheKind


class KnormConfig(EvictionConfig):
    """Keep the tokens of a prompt whose keys are shortest (arXiv 2406.11430)."""

    kind: Literal["knorm"] = "knorm"


def knorm(config: KnormConfig) -> CacheKind:
    """Build the cache: the score is −‖k‖₂.

    Example:
        >>> knorm(KnormConfig(ratio=0.5)).name
        'knorm'

    Reference: Devoto et al. 2024, arXiv 2406.11430.
    """
    return eviction_kind(config.kind, config, _score)


def _score(prompts: Prompts) -> mx.array:
    return -mx.linalg.norm(prompts.keys.astype(mx.float32), axis=-1)

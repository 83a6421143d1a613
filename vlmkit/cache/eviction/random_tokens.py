"""Random tokens: what every other eviction method has to be better than."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
import numpy as np
from pydantic import Field

from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.cache.eviction.kind import Prompts, Score, eviction_kind
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.configbase import Int


class RandomConfig(EvictionConfig):
    """Keep tokens of a prompt at random: the baseline of every eviction (arXiv 2511.02650)."""

    kind: Literal["random"] = "random"
    seed: Int = Field(0, ge=0, lt=2**32, description="Of the choice; each layer has its own.")


def random_tokens(config: RandomConfig) -> CacheKind:
    """Build the cache: the score of token j in a head depends on the seed, the layer, j, the head.

    So a prompt keeps the same tokens alone, in a batch, and however it was cut.

    Example:
        >>> kind = random_tokens(RandomConfig(ratio=0.5, seed=7))
        >>> kind.in_layer(3, 12).settings[1]
        3
    """

    def layer(place: int, count: int) -> CacheKind:
        return eviction_kind(config.kind, config, _score(config.seed, place), layer=place)

    return layer(0, 1)._replace(in_layer=layer)


def _score(seed: int, layer: int) -> Score:
    def score(prompts: Prompts) -> mx.array:
        heads, count = prompts.keys.shape[1:3]
        # Token by token, so that a longer prompt beside it changes nothing.
        drawn = np.random.default_rng((seed, layer)).random((count, heads), np.float32)
        return mx.broadcast_to(mx.array(drawn.T)[None], prompts.keys.shape[:3])

    return score

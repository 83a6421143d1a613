"""KeyDiff: keep the tokens whose keys are least like the others'."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx

from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.cache.eviction.kind import Prompts, eviction_kind
from vlmkit.contracts.interface import CacheKind

_SMALLEST = 1e-8  # of a norm that is divided by


class KeyDiffConfig(EvictionConfig):
    """Keep the tokens of a prompt whose keys differ most from the mean key (arXiv 2504.15364)."""

    kind: Literal["keydiff"] = "keydiff"


def keydiff(config: KeyDiffConfig) -> CacheKind:
    """Build the cache: the score is −cos(k, mean of the keys, each of length 1).

    The whole prompt is scored at once; the authors also do it block by block.

    Example:
        >>> keydiff(KeyDiffConfig(ratio=0.5)).name
        'keydiff'

    Reference: Park et al. 2025, arXiv 2504.15364.
    """
    return eviction_kind(config.kind, config, _score)


def _score(prompts: Prompts) -> mx.array:
    keys = prompts.keys.astype(mx.float32)
    unit = keys / mx.maximum(mx.linalg.norm(keys, axis=-1, keepdims=True), _SMALLEST)
    is_there = mx.arange(keys.shape[2], dtype=mx.int32) < prompts.ends[:, None]
    unit = mx.where(is_there[:, None, :, None], unit, 0.0)
    # The length of the anchor is of no matter to its angle: a sum is as good as the mean.
    anchor = unit.sum(axis=2, keepdims=True)
    anchor = anchor / mx.maximum(mx.linalg.norm(anchor, axis=-1, keepdims=True), _SMALLEST)
    return -(unit * anchor).sum(axis=-1)

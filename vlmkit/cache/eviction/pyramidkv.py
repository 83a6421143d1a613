"""PyramidKV: SnapKV's choice, with more tokens in the first layers than in the last."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlmkit.cache.eviction.kind import eviction_kind
from vlmkit.cache.eviction.observers import last_queries
from vlmkit.cache.eviction.snapkv import WindowConfig, snapkv_score
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.configbase import Int


class PyramidKVConfig(WindowConfig):
    """Choose as snapkv does; the first layers keep most and the last least (arXiv 2406.02069)."""

    kind: Literal["pyramidkv"] = "pyramidkv"
    beta: Int = Field(
        20, ge=1, description="How steep: the last layer keeps the average share / beta."
    )

    @model_validator(mode="after")
    def _all_tokens_are_one(self) -> PyramidKVConfig:
        if self.image_ratio is not None:
            raise ValueError("image_ratio: the layers of pyramidkv differ already; use snapkv")
        return self


def pyramidkv(config: PyramidKVConfig) -> CacheKind:
    """Build the cache; ``in_layer`` makes each layer's own, and this one is of an only layer.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.contracts.interface import KVSpec, PromptShape
        >>> kind, spec = pyramidkv(PyramidKVConfig(ratio=0.5, window=8)), KVSpec(1, 64, 64, None, 2)
        >>> own = [kind.in_layer(place, 3) for place in range(3)]
        >>> [one.finishing.hold(spec, mx.float16, PromptShape(100), 100).num_tokens for one in own]
        [92, 50, 8]

    Reference: Cai et al. 2024, arXiv 2406.02069; budgets as in kvpress.
    """

    def layer(place: int, count: int) -> CacheKind:
        return eviction_kind(
            config.kind,
            config,
            snapkv_score(config.pool),
            observer=last_queries(config.window),
            num_kept=lambda prompt: layer_budget(config, prompt.length, place, count),
            layer=place,
        )

    return layer(0, 1)._replace(in_layer=layer)


def layer_budget(config: PyramidKVConfig, length: int, place: int, count: int) -> int:
    """Return the tokens that a layer keeps of a prompt; their mean over the layers is the budget.

    Falls linearly from layer 0. Where the last layer would keep fewer than the window, all layers
    keep alike.

    Args:
        config: of the cache.
        length: of the prompt.
        place: of the layer.
        count: of layers.
    """
    mean = min(config.budget or 0, length) if config.ratio is None else length * config.ratio
    if mean >= length or count == 1:
        return int(mean + 1e-9)
    most, least = mean * (2 - 1 / config.beta), mean / config.beta
    if most >= length - config.window:
        most = length - config.window
        least = 2 * mean - most
    if not length >= most >= least >= config.window:
        return round(mean)
    return round(most - place * (most - least) / (count - 1))

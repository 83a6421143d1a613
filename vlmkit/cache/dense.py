"""The dense KV cache: every token, as computed."""

from __future__ import annotations

from functools import partial
from typing import Literal

from vlmkit.cache.compose import cache_kind
from vlmkit.cache.layout import dense_layout
from vlmkit.cache.rotating import windowed
from vlmkit.cache.storage import Storage, plain
from vlmkit.contracts.interface import CacheKind
from vlmkit.declare.configbase import StageConfig


class DenseConfig(StageConfig):
    """Keep every key and value in the model's dtype."""

    kind: Literal["dense"] = "dense"


def dense(config: DenseConfig) -> CacheKind:
    """Build the dense cache: token j of a row in slot j, query i sees j <= i.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.contracts.interface import KVSpec, Span
        >>> kind = dense(DenseConfig())
        >>> state = kind.init(1, KVSpec(1, key_dim=4, value_dim=4), mx.float32)
        >>> plan = kind.plan(state, Span(starts=(0,), lengths=(3,), width=3))
        >>> state = kind.append(state, mx.ones((1, 1, 3, 4)), mx.ones((1, 1, 3, 4)), plan)
        >>> kind.attend(state, mx.ones((1, 2, 3, 4)), plan, 0.5).shape
        (1, 2, 3, 4)
    """
    return cache_kind(
        config.kind, dense_layout, Storage(plain, plain), windowed=partial(windowed, config.kind)
    )

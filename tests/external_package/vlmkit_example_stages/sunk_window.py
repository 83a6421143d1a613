"""Hold the first tokens and the last ones, rounded to float16."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.cache import Codec, Storage, cache_kind, rotating_layout, windowed_layout
from vlmkit.contracts.interface import CacheKind


def sunk_window(*, first: int = 4, last: int) -> CacheKind:
    """The first ``first`` tokens of a row and its ``last`` last ones, in float16."""
    if last < 1:
        raise ValueError(f"last must be at least 1, got {last}")
    codec = Codec(
        encode=lambda x: (x.astype(mx.float16),),
        decode=lambda stored, dtype: stored[0].astype(dtype),
        quantizes=True,
    )
    storage = Storage(codec, codec)
    return cache_kind(
        "sunk_window",
        rotating_layout(first + last, first),
        storage,
        settings=(first, last),
        windowed=lambda window: cache_kind(
            "sunk_window", windowed_layout(min(window, last)), storage, settings=window
        ),
    )

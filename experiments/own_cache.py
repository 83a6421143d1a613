"""A KV cache of one's own: ``kind: external`` finds it by name."""

import mlx.core as mx

from vlmkit.cache import Codec, Storage, cache_kind, dense_layout, windowed_layout


def half():
    """Hold all keys and values in float16, whatever the model computes in."""
    codec = Codec(
        encode=lambda x: (x.astype(mx.float16),),
        decode=lambda stored, dtype: stored[0].astype(dtype),
        quantizes=True,
    )
    storage = Storage(codec, codec)

    def windowed(window):
        return cache_kind("half", windowed_layout(window), storage, settings=window)

    return cache_kind("half", dense_layout, storage, windowed=windowed)

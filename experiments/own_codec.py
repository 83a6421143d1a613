"""A codec of one's own for keys or values: ``kind: external`` finds it by name."""

import mlx.core as mx

from vlmkit.cache import Codec


def ternary(threshold=0.7):
    """Hold -1, 0 or 1 for each number and one scale a vector: 2 bits and 16 / head_dim."""

    def encode(x):
        size = mx.abs(x)
        large = size > threshold * size.mean(axis=-1, keepdims=True)
        scale = (size * large).sum(-1, keepdims=True) / mx.maximum(large.sum(-1, keepdims=True), 1)
        codes = mx.where(large, mx.where(x > 0, 2, 0), 1).astype(mx.uint32)
        groups = codes.reshape(*x.shape[:-1], x.shape[-1] // 16, 16)
        return (groups << mx.arange(0, 32, 2, mx.uint32)).sum(-1), scale.astype(mx.float16)

    def decode(stored, dtype):
        words, scale = stored
        codes = (words[..., None] >> mx.arange(0, 32, 2, mx.uint32)) & 3
        return (codes.flatten(-2).astype(dtype) - 1) * scale.astype(dtype)

    return Codec(encode, decode, quantizes=True)

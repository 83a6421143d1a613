"""KIVI: keys rounded per channel over groups of tokens, values per token."""

from __future__ import annotations

from functools import cache
from typing import Literal

import mlx.core as mx
import numpy as np

from vlmkit.cache.codec.packing import pack, unpack, word_table
from vlmkit.cache.storage import Codec, Stored


def kivi_codec(bits: int, group_size: int, along: Literal["tokens", "channels"]) -> Codec:
    """Build the codec of blocks [..., T, D].

    Of each group, s = (max - min) / (2**bits - 1) and q = round((x - min) / s).

    A channel of keys has large values in all tokens or in none, so its tokens share a scale better
    than a token's channels do. Takes bits + 32 / group_size bits per element.

    Args:
        bits: of a code, 1 to 8.
        group_size: elements that share a scale and a least value, of 16 bits each; divides T or D.
        along: the axis that groups lie along: tokens for keys, channels for values.

    Example:
        >>> codec = kivi_codec(2, 32, along="tokens")
        >>> [x.shape for x in codec.encode(mx.ones((1, 1, 1, 64, 8)))]
        [(1, 1, 1, 8, 16), (1, 1, 1, 8, 2), (1, 1, 1, 8, 2)]

    Reference: Liu et al. 2024 (KIVI), arXiv 2402.02750.
    """

    def oriented(x: mx.array) -> mx.array:
        return x.swapaxes(-1, -2) if along == "tokens" else x

    def encode(x: mx.array) -> Stored:
        x = oriented(x.astype(mx.float32))
        groups = x.reshape(*x.shape[:-1], x.shape[-1] // group_size, group_size)
        low, high = groups.min(axis=-1), groups.max(axis=-1)
        lows, steps = low.astype(mx.float16), ((high - low) / (2**bits - 1)).astype(mx.float16)
        step = mx.where(steps > 0, steps.astype(mx.float32), 1.0)[..., None]
        codes = mx.round((groups - lows.astype(mx.float32)[..., None]) / step)
        codes = mx.clip(codes, 0, 2**bits - 1).astype(mx.uint8)
        return pack(codes.reshape(x.shape), bits), steps, lows

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        packed, steps, lows = stored
        count = steps.shape[-1] * group_size
        codes = unpack(packed, _table(bits), bits, count)
        groups = codes.reshape(*steps.shape, group_size)
        read = groups * steps.astype(mx.float32)[..., None] + lows.astype(mx.float32)[..., None]
        return oriented(read.reshape(*steps.shape[:-1], count)).astype(dtype)

    return Codec(encode, decode, quantizes=True)


@cache
def _table(bits: int) -> mx.array:
    table = word_table(mx.array(np.arange(2**bits, dtype=np.float32)), bits)
    mx.eval(table)
    return table

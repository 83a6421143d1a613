"""Arrays as codecs store them and read them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.cache import AffineConfig, External
from vlmkit.cache.storage import Codec


def through(codec: Codec, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """As stored and read back; the codec's own tests hold it to the formulas."""
    return np.array(codec.decode(codec.encode(mx.array(x)[None]), mx.float32)[0])


def in_blocks(codec: Codec, x: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The same of each whole block; the rest as it is."""
    whole = x.shape[1] - x.shape[1] % size
    if whole == 0:
        return x
    blocks = x[:, :whole].reshape(x.shape[0], -1, size, x.shape[2])
    return np.concatenate([through(codec, blocks).reshape(x.shape[0], whole, -1), x[:, whole:]], 1)


def rounded(
    config: Any, x: NDArray[np.float32], own_bits: Callable[[AffineConfig], int | None]
) -> NDArray[np.float32]:
    if isinstance(config, External):
        return np.array(mx.array(x).astype(mx.float16).astype(mx.float32))
    if not isinstance(config, AffineConfig):
        return x
    bits = own_bits(config) or config.bits
    half = mx.array(x).astype(mx.float16)
    codes, *steps = mx.quantize(half, group_size=config.group_size, bits=bits)
    codes = (codes, *(step.astype(mx.float32) for step in steps))  # read exactly: scale * q + bias
    return np.array(
        mx.dequantize(*codes, group_size=config.group_size, bits=bits, dtype=mx.float32)
    )

"""One scale per token and head: int8, int4, fp8."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

import mlx.core as mx
import numpy as np
from pydantic import Field

from vlmkit.cache.codec.packing import pack, unpack, word_table
from vlmkit.cache.storage import Codec, Stored
from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError

Number = Literal["int8", "int4", "fp8"]

LARGEST: Mapping[str, float] = {"int8": 127.0, "int4": 7.0, "fp8": 448.0}
"""What the largest magnitude of a vector is stored as."""

_LARGEST_SCALE = 65504.0  # of float16


class PerTokenHeadConfig(StageConfig):
    """Round to int8, int4 or fp8 with one scale per token and head."""

    kind: Literal["per_token_head"] = "per_token_head"
    dtype: Number = Field("int8", description="int8, int4 (two in a byte) or fp8 (e4m3).")


def per_token_head(dtype: Number) -> Codec:
    """Build the codec: with s = max|x| / largest number, q = round(x / s) and a float16 s.

    A vector of D channels takes 8 D (int4: 4 D) bits and 16 for its scale.

    Example:
        >>> codec = per_token_head("int4")
        >>> codes, scales = codec.encode(mx.array([[[[7.0, -3.0, 0.4, 2.0]]]]))
        >>> codes.shape, codec.decode((codes, scales), mx.float32).tolist()[0][0][0]
        ((1, 1, 1, 2), [7.0, -3.0, 0.0, 2.0])

    Reference: vLLM, vllm-project/vllm pull 39074.
    """
    largest = LARGEST[dtype]

    def encode(x: mx.array) -> Stored:
        x = x.astype(mx.float32)
        wanted = mx.abs(x).max(axis=-1, keepdims=True) / largest
        scales = mx.minimum(wanted, _LARGEST_SCALE).astype(mx.float16)
        steps = scales.astype(mx.float32)  # as they will be read
        scaled = mx.clip(x / mx.where(steps > 0, steps, 1.0), -largest, largest)
        return _coded(scaled, dtype), scales

    def decode(stored: Stored, to: mx.Dtype) -> mx.array:
        codes, scales = stored
        return (_numbers(codes, dtype) * scales.astype(mx.float32)).astype(to)

    return Codec(encode, decode, quantizes=True)


def check_per_token_head_dim(dtype: Number, dim: int) -> None:
    """Raise VlmkitError, its path the key, unless the codec works for ``dim`` channels.

    >>> check_per_token_head_dim("int4", 31)
    Traceback (most recent call last):
    vlmkit.errors.VlmkitError: dtype: int4 needs an even head_dim, got 31; use int8
    """
    if dtype == "int4" and dim % 2:
        raise VlmkitError(
            f"dtype: int4 needs an even head_dim, got {dim}; use int8", path=("dtype",)
        )


def _coded(scaled: mx.array, dtype: Number) -> mx.array:
    if dtype == "fp8":
        return mx.to_fp8(scaled)
    rounded = mx.round(scaled).astype(mx.int8)
    return rounded if dtype == "int8" else pack((rounded + 8).astype(mx.uint8), 4)


def _numbers(codes: mx.array, dtype: Number) -> mx.array:
    if dtype == "fp8":
        return mx.from_fp8(codes, mx.float32)
    if dtype == "int8":
        return codes.astype(mx.float32)
    return unpack(codes, _int4_table(), 4, 2 * codes.shape[-1])


@cache
def _int4_table() -> mx.array:
    table = word_table(mx.array(np.arange(-8, 8, dtype=np.float32)), 4)
    mx.eval(table)
    return table

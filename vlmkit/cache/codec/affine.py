"""The affine codec: a few bits per element, a scale and a bias per group of channels."""

from __future__ import annotations

from typing import Annotated, Literal

import mlx.core as mx
from pydantic import AfterValidator, Field

from vlmkit.cache.storage import Codec, Products, Stored
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)


def _supported_bits(bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"{bits} bits is not supported; use one of {', '.join(map(str, BITS))}")
    return bits


def _supported_group_size(size: int) -> int:
    if size not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise ValueError(f"group_size {size} is not supported; use one of {sizes}")
    return size


Bits = Annotated[Int, AfterValidator(_supported_bits)]
GroupSize = Annotated[Int, AfterValidator(_supported_group_size)]


class AffineCodecConfig(StageConfig):
    """Round to even steps, with a scale and a bias per group of channels."""

    kind: Literal["affine"] = "affine"
    bits: Bits = Field(8, description="Bits per element: 2, 3, 4, 5, 6 or 8.")
    group_size: GroupSize = Field(
        64, description="Elements that share a scale: 32, 64 or 128; must divide head_dim."
    )


def affine_codec(bits: int, group_size: int) -> Codec:
    """Build the codec: packed codes, and a scale and a bias of 16 bits per group.

    Args:
        bits: of a code, one of ``BITS``.
        group_size: channels that share a scale and a bias, one of ``GROUP_SIZES``.

    Example:
        >>> codec = affine_codec(4, 32)
        >>> [x.shape[-1] for x in codec.encode(mx.ones((1, 1, 1, 64)))]
        [8, 2, 2]

    Reference: ``mlx.core.quantize``.
    """

    def encode(x: mx.array) -> Stored:
        if x.dtype == mx.float32:
            x = x.astype(mx.float16)  # the scales take the dtype of what is quantized
        codes, scales, biases = mx.quantize(x, group_size=group_size, bits=bits)
        return codes, scales, biases

    def widened(stored: Stored, dtype: mx.Dtype) -> tuple[mx.array, mx.array, mx.array]:
        # MLX computes in the dtype of the scales, and float16 arithmetic is slow on a CPU.
        codes, scales, biases = stored
        return codes, scales.astype(dtype), biases.astype(dtype)

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        codes, scales, biases = widened(stored, dtype)
        return mx.dequantize(codes, scales, biases, group_size=group_size, bits=bits, dtype=dtype)

    def product(x: mx.array, stored: Stored, transpose: bool) -> mx.array:
        codes, scales, biases = widened(stored, x.dtype)
        return mx.quantized_matmul(
            x, codes, scales, biases, transpose=transpose, group_size=group_size, bits=bits
        )

    def scores(queries: mx.array, stored: Stored) -> mx.array:
        return product(queries, stored, transpose=True)

    def mixed(weights: mx.array, stored: Stored) -> mx.array:
        return product(weights, stored, transpose=False)

    return Codec(encode, decode, quantizes=True, products=Products(scores, mixed))


def check_affine_dim(group_size: int, dim: int) -> None:
    """Raise VlmkitError, its path the key, unless groups of that size divide ``dim`` channels.

    >>> check_affine_dim(64, 96)
    Traceback (most recent call last):
    vlmkit.errors.VlmkitError: group_size: 64 does not divide head_dim 96; use group_size 32
    """
    if dim % group_size:
        sizes = [str(size) for size in GROUP_SIZES if dim % size == 0]
        remedy = f"use group_size {' or '.join(sizes)}" if sizes else "use another codec"
        raise VlmkitError(
            f"group_size: {group_size} does not divide head_dim {dim}; {remedy}",
            path=("group_size",),
        )

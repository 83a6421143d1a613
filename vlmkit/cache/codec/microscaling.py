"""Floats of 4 or 8 bits that share a scale of 8 bits per short group: mxfp4, mxfp8, nvfp4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import mlx.core as mx

from vlmkit.cache.storage import Codec, Stored
from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError

Format = Literal["mxfp4", "mxfp8", "nvfp4"]

GROUP_SIZES: Mapping[str, int] = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}


class MicroscalingConfig(StageConfig):
    """Round to floats of 4 or 8 bits with a scale of 8 bits per 32 (mxfp) or 16 (nvfp4) channels.

    ``kind`` names the format. The scale is a power of 2 (e8m0) in mxfp4 and mxfp8, an e4m3 float
    in nvfp4.
    """

    kind: Format = "mxfp4"


def microscaling(kind: Format) -> Codec:
    """Build the codec of a format: 4.25 (mxfp4), 4.5 (nvfp4) or 8.25 (mxfp8) bits per element.

    A scale of nvfp4 is at most 448, so it holds magnitudes up to 2688; larger ones are cut there.

    Example:
        >>> codec = microscaling("nvfp4")
        >>> [(x.shape[-1], str(x.dtype)) for x in codec.encode(mx.ones((1, 1, 1, 64)))]
        [(8, 'mlx.core.uint32'), (4, 'mlx.core.uint8')]

    Reference: ``mlx.core.quantize``; OCP Microscaling Formats (MX) Specification 1.0.
    """

    def encode(x: mx.array) -> Stored:
        if x.size == 0:  # mx.quantize takes no empty array
            one = encode(mx.zeros((1, x.shape[-1]), x.dtype))
            return tuple(mx.zeros((*x.shape[:-1], y.shape[-1]), y.dtype) for y in one)
        codes, scales, *_ = mx.quantize(x, mode=kind)
        return codes, scales

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        codes, scales = stored
        return mx.dequantize(codes, scales, mode=kind, dtype=dtype)

    return Codec(encode, decode, quantizes=True)


def check_microscaling_dim(kind: Format, dim: int) -> None:
    """Raise VlmkitError, its path the key, unless the format's groups divide ``dim`` channels.

    >>> check_microscaling_dim("mxfp4", 48)
    Traceback (most recent call last):
    vlmkit.errors.VlmkitError: kind: mxfp4 has groups of 32, which do not divide head_dim 48; \
use nvfp4
    """
    size = GROUP_SIZES[kind]
    if dim % size:
        remedy = "use nvfp4" if dim % GROUP_SIZES["nvfp4"] == 0 else "use per_token_head"
        raise VlmkitError(
            f"kind: {kind} has groups of {size}, which do not divide head_dim {dim}; {remedy}",
            path=("kind",),
        )

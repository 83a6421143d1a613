"""Any codec behind a Hadamard rotation, which spreads outlier channels over all of them."""

from __future__ import annotations

from functools import cache

import mlx.core as mx

from vlmkit.cache.codec.rotation import hadamard
from vlmkit.cache.storage import Codec, Frame, Stored
from vlmkit.errors import VlmkitError


def behind_hadamard(codec: Codec) -> Codec:
    """Build the codec that stores x H in place of x, H being the Hadamard matrix over √D.

    Keys are rotated after their rotary embedding, and attention rotates its queries instead of
    what is stored: (q H)(k H)ᵀ = q kᵀ. Values are weighted as stored and the result is rotated
    back. So what ``codec`` leaves exact stays exact up to rounding.

    Args:
        codec: of vectors of D channels, D a power of 2.

    Example:
        >>> from vlmkit.cache.storage import plain
        >>> codec = behind_hadamard(plain)
        >>> x = mx.array([[[[8.0, 0.0, 0.0, 0.0]]]])
        >>> codec.encode(x)[0].tolist(), codec.decode(codec.encode(x), mx.float32).tolist()
        ([[[[4.0, 4.0, 4.0, 4.0]]]], [[[[8.0, 0.0, 0.0, 0.0]]]])

    Reference: Ashkboos et al. 2024 (QuaRot), arXiv 2404.00456.
    """
    inner = codec.frame

    def encode(x: mx.array) -> Stored:
        return codec.encode((x.astype(mx.float32) @ _matrix(x.shape[-1])).astype(x.dtype))

    def coordinates(stored: Stored, dtype: mx.Dtype) -> mx.array:
        return codec.decode(stored, dtype) if inner is None else inner.coordinates(stored, dtype)

    def basis(stored: Stored) -> mx.array:
        if inner is not None:
            own = inner.basis(stored)
            return own @ _matrix(own.shape[-1])
        one = tuple(x[:, :, :1] for x in stored)  # for its shape: it is never computed
        return _matrix(codec.decode(one, mx.float32).shape[-1])

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        return (coordinates(stored, mx.float32) @ basis(stored)).astype(dtype)

    return Codec(encode, decode, quantizes=codec.quantizes, frame=Frame(coordinates, basis))


def check_hadamard_dim(dim: int) -> None:
    """Raise VlmkitError, its path the key, unless ``dim`` is a power of 2.

    >>> check_hadamard_dim(96)
    Traceback (most recent call last):
    vlmkit.errors.VlmkitError: kind: hadamard needs a head_dim that is a power of 2, got 96; \
use turboquant, which rotates any
    """
    if dim & (dim - 1):
        raise VlmkitError(
            f"kind: hadamard needs a head_dim that is a power of 2, got {dim}; use turboquant, "
            "which rotates any",
            path=("kind",),
        )


@cache
def _matrix(dim: int) -> mx.array:
    return mx.array(hadamard(dim))  # symmetric: its own inverse

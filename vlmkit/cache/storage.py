"""How keys and values are stored in the slots of a buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

Stored = tuple[mx.array, ...]
"""One tensor as stored; every array is [B, H_kv, S, *]."""


class Frame(NamedTuple):
    """Coordinates in a basis of their own: ``decode`` is ``coordinates @ basis``.

    Attention multiplies its queries and what it read, not every token that is stored: the scores of
    q are ``(q @ basis.T) @ coordinates.T``, and values weighted by w ``(w @ coordinates) @ basis``.
    """

    coordinates: Callable[[Stored, mx.Dtype], mx.array]  # [B, H_kv, S, Z] in this dtype
    basis: Callable[[Stored], mx.array]  # of what is stored so: float32 [Z, D]


class Products(NamedTuple):
    """Products with what is stored, without decoding it."""

    scores: Callable[[mx.array, Stored], mx.array]
    # queries float32 [B, H_kv, R, D], stored -> queries @ decoded.T, float32 [B, H_kv, R, S]
    mixed: Callable[[mx.array, Stored], mx.array]
    # weights float32 [B, H_kv, R, S], stored -> weights @ decoded, float32 [B, H_kv, R, D]


class Codec(NamedTuple):
    """How one tensor [B, H_kv, S, D] is stored."""

    encode: Callable[[mx.array], Stored]
    decode: Callable[[Stored, mx.Dtype], mx.array]  # back to [B, H_kv, S, D] in this dtype
    quantizes: bool = False  # in fewer bits than it was computed in
    frame: Frame | None = None  # in which it is read for less than ``decode`` costs; None: as it is
    products: Products | None = None  # which are fast for few queries; None: it has none


class Storage(NamedTuple):
    """A codec for the keys and one for the values."""

    keys: Codec
    values: Codec

    @property
    def quantizes(self) -> bool:
        """Whether either holds fewer bits than were computed."""
        return self.keys.quantizes or self.values.quantizes


def _as_is(x: mx.array) -> Stored:
    return (x,)


def _cast(stored: Stored, dtype: mx.Dtype) -> mx.array:
    return stored[0].astype(dtype)


plain = Codec(encode=_as_is, decode=_cast)
"""Keep a tensor as computed, in its own dtype."""

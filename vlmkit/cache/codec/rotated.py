"""Vectors in a rotated frame: their norm, and the nearest centroid of each coordinate."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.cache.codec.centroids import lloyd_max, nearest
from vlmkit.cache.codec.packing import pack, unpack, word_table
from vlmkit.cache.storage import Stored

Matrix = NDArray[np.float32]

_LARGEST = 65504.0  # of float16


class Quantizer(NamedTuple):
    """A codec of vectors [..., D]; what is read back is ``coordinates @ basis``."""

    encode: Callable[[mx.array], Stored]
    coordinates: Callable[[Stored, mx.Dtype], mx.array]  # [..., Z] in this dtype
    basis: mx.array  # float32 [Z, D]
    num_arrays: int  # of what is stored


def mse_quantizer(rotation: Matrix, bits: int, *, corrected: bool) -> Quantizer:
    """Keep the norm and, of the rotated direction, the nearest Lloyd-Max centroids.

    Args:
        rotation: orthogonal ``[D, D]``.
        bits: of each code, 1 to 8.
        corrected: whether what is read has the norm of the vector, not only nearly so.
    """
    dim = rotation.shape[0]
    turn, values = mx.array(rotation.T), mx.array(lloyd_max(dim, bits).astype(np.float32))
    table = _table_of(values, bits)

    def encode(x: mx.array) -> Stored:
        norms, turned = _direction(x, turn)
        codes = nearest(turned, values)
        if corrected:
            norms = norms / mx.linalg.norm(values[codes], axis=-1, keepdims=True)
        return pack(codes, bits), _half(norms)

    def coordinates(stored: Stored, dtype: mx.Dtype) -> mx.array:
        codes, norms = stored
        return unpack(codes, table(dtype), bits, dim) * norms.astype(dtype)

    return Quantizer(encode, coordinates, mx.array(rotation), 2)


def prod_quantizer(rotation: Matrix, bits: int, sketch: Matrix, factor: float) -> Quantizer:
    """Keep the same with one bit less, and of the residual its norm and the signs of a sketch.

    Args:
        rotation: orthogonal ``[D, D]``.
        bits: of each code and its sign together, 2 to 8.
        sketch: random ``[D, D]``.
        factor: of the sketch, such that inner products are right on average.
    """
    dim, bits = rotation.shape[0], bits - 1
    turn, values = mx.array(rotation.T), mx.array(lloyd_max(dim, bits).astype(np.float32))
    seen = mx.array(sketch.T)
    table, signs = _table_of(values, bits), _table_of(mx.array([-1.0, 1.0]), 1)

    def encode(x: mx.array) -> Stored:
        norms, turned = _direction(x, turn)
        codes = nearest(turned, values)
        rest = turned - values[codes]
        rest_norms = norms * mx.linalg.norm(rest, axis=-1, keepdims=True)
        return pack(codes, bits), _half(norms), pack(rest @ seen >= 0, 1), _half(rest_norms)

    def coordinates(stored: Stored, dtype: mx.Dtype) -> mx.array:
        codes, norms, positive, rest_norms = stored
        main = unpack(codes, table(dtype), bits, dim) * norms.astype(dtype)
        rest = unpack(positive, signs(dtype), 1, dim) * rest_norms.astype(dtype)
        return mx.concatenate([main, rest], axis=-1)

    basis = np.concatenate([rotation, np.float32(factor) * (sketch @ rotation)])
    return Quantizer(encode, coordinates, mx.array(basis), 4)


def _table_of(values: mx.array, bits: int) -> Callable[[mx.Dtype], mx.array]:
    @cache
    def table(dtype: mx.Dtype) -> mx.array:
        found = word_table(values, bits).astype(dtype)
        mx.eval(found)
        return found

    return table


def _direction(x: mx.array, turn: mx.array) -> tuple[mx.array, mx.array]:
    """The norms [..., 1] of vectors and their directions, turned; float32, zeros stay zeros."""
    x = x.astype(mx.float32)
    largest = mx.abs(x).max(axis=-1, keepdims=True)  # squares must not overflow or vanish
    scaled = x / mx.where(largest > 0, largest, 1.0)
    lengths = mx.linalg.norm(scaled, axis=-1, keepdims=True)
    return lengths * largest, scaled / mx.where(lengths > 0, lengths, 1.0) @ turn


def _half(norms: mx.array) -> mx.array:
    """As float16, not beyond its largest; of a vector that is not finite, NaN."""
    return mx.where(mx.isfinite(norms), mx.minimum(norms, _LARGEST), mx.nan).astype(mx.float16)

"""KVarN: blocks of tokens, rotated, of even variance along both axes, then rounded."""

from __future__ import annotations

from functools import cache
from typing import Literal

import mlx.core as mx
import numpy as np

from vlmkit.cache.codec.packing import pack, unpack, word_table
from vlmkit.cache.codec.rotation import hadamard
from vlmkit.cache.storage import Codec, Frame, Stored

ROUNDS = 16
"""Rounds of balancing, as the authors run it."""

# The authors' bounds on a standard deviation and on the logarithm of a scale.
_LEAST_STD, _LARGEST_STD = 1e-3, 1e3
_LEAST_LOG, _LARGEST_LOG = -0.3, 10.0
_LEAST_STEP = 1e-10


def kvarn(bits: int, along: Literal["tokens", "channels"]) -> Codec:
    """Build the codec of blocks of T tokens of D channels, ``[..., T, D]``.

    A block is multiplied by the Hadamard matrix along its channels and divided by a scale per
    channel and one per token that make its standard deviations even along both axes. What is left
    is rounded, x ≈ step q + offset, with a step and an offset per channel (keys: ``along`` tokens)
    or per token (values: ``along`` channels), which take that axis' scale in. So an element takes
    ``bits`` bits, and 32 / (elements along that axis) + 16 / (elements along the other) more. The
    authors take blocks of 64 or 128 tokens, and a D that is a power of 2; of another D each part of
    the largest power of 2 that divides it is rotated by itself.

    Args:
        bits: of a code, 1 to 8; the authors use 4 for keys and 2 for values.
        along: the axis whose elements share a step.

    Example:
        >>> codec = kvarn(4, along="tokens")
        >>> x = mx.random.normal((1, 2, 64, 32), key=mx.random.key(0))
        >>> stored = codec.encode(x)
        >>> [a.shape for a in stored]
        [(1, 2, 32, 32), (1, 2, 32, 1), (1, 2, 32, 1), (1, 2, 1, 64)]
        >>> bool(((codec.decode(stored, mx.float32) - x).square().mean() < 0.01).item())
        True

    Reference: Muller et al. 2026, arXiv 2606.03458; the bounds of the scales and the choice among
    the rounds: huawei-csl/KVarN, ascend_kernel/kvarn_store_tile_k/api_test.py.
    """

    def oriented(x: mx.array) -> mx.array:
        return x.swapaxes(-1, -2) if along == "tokens" else x

    def encode(x: mx.array) -> Stored:
        tile = oriented(x.astype(mx.float32) @ _matrix(x.shape[-1]))
        rows, columns = balance(tile)
        return (*_round(tile / rows / columns, rows, bits), columns.astype(mx.float16))

    def coordinates(stored: Stored, dtype: mx.Dtype) -> mx.array:
        codes, steps, offsets, columns = stored
        q = unpack(codes, _code_table(bits, dtype), bits, columns.shape[-1])
        return oriented((q * steps.astype(dtype) + offsets.astype(dtype)) * columns.astype(dtype))

    def basis(stored: Stored) -> mx.array:
        _, steps, _, columns = stored
        return _matrix(steps.shape[-2] if along == "tokens" else columns.shape[-1])

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        return (coordinates(stored, mx.float32) @ basis(stored)).astype(dtype)  # its own inverse

    return Codec(encode, decode, quantizes=True, frame=Frame(coordinates, basis))


def balance(tile: mx.array) -> tuple[mx.array, mx.array]:
    """Return scales that, divided out, make the standard deviations of rows and columns even.

    In turn each axis is divided by its standard deviations; of all rounds the one counts whose
    largest and smallest deviation are nearest, summed over both axes.

    Args:
        tile: float32 ``[..., R, C]``.

    Returns:
        Of the rows ``[..., R, 1]`` and of the columns ``[..., 1, C]``.
    """
    log_rows, log_columns = mx.zeros_like(tile[..., :1]), mx.zeros_like(tile[..., :1, :])
    rows, columns = mx.exp(log_rows), mx.exp(log_columns)
    least = _imbalance(tile)
    now = tile
    for _ in range(ROUNDS):
        log_columns = _bounded(log_columns + _log_std(now, axis=-2))
        now = tile * mx.exp(-log_columns - log_rows)
        log_rows = _bounded(log_rows + _log_std(now, axis=-1))
        now = tile * mx.exp(-log_columns - log_rows)
        imbalance = _imbalance(now)
        better = imbalance <= least
        rows = mx.where(better, mx.exp(log_rows), rows)
        columns = mx.where(better, mx.exp(log_columns), columns)
        least = mx.minimum(imbalance, least)
    return rows, columns


def _bounded(log_scales: mx.array) -> mx.array:
    return mx.clip(log_scales, _LEAST_LOG, _LARGEST_LOG)


def _log_std(tile: mx.array, axis: int) -> mx.array:
    std = mx.std(tile, axis=axis, keepdims=True, ddof=1)
    return mx.log(mx.clip(std, _LEAST_STD, _LARGEST_STD))


def _imbalance(tile: mx.array) -> mx.array:
    """The largest over the least standard deviation, of rows and of columns: [..., 1, 1]."""
    total = mx.zeros_like(tile[..., :1, :1])
    for axis in (-1, -2):
        stds = mx.std(tile, axis=axis, keepdims=True, ddof=1)
        least = mx.maximum(stds.min(axis=(-1, -2), keepdims=True), 1e-8)
        total = total + stds.max(axis=(-1, -2), keepdims=True) / least
    return total


def _round(tile: mx.array, rows: mx.array, bits: int) -> Stored:
    low, high = tile.min(axis=-1, keepdims=True), tile.max(axis=-1, keepdims=True)
    step = mx.maximum((high - low) / (2**bits - 1), _LEAST_STEP)
    codes = mx.clip(mx.round((tile - low) / step), 0, 2**bits - 1).astype(mx.uint8)
    return pack(codes, bits), (rows * step).astype(mx.float16), (rows * low).astype(mx.float16)


@cache
def _matrix(dim: int) -> mx.array:
    """Hadamard matrices of the largest power of 2 that divides dim, along the diagonal."""
    size = dim & -dim
    return mx.array(np.kron(np.eye(dim // size, dtype=np.float32), hadamard(size)))


@cache
def _code_table(bits: int, dtype: mx.Dtype) -> mx.array:
    table = word_table(mx.array(np.arange(2**bits, dtype=np.float32)), bits).astype(dtype)
    mx.eval(table)
    return table

"""Codes of 1 to 8 bits, packed without gaps, and read back through a table of what they stand for.

Codes lie in a stream of bits, low bits first. A word is so many codes that two bytes always hold
it: reading looks up whole words, not single codes.
"""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np

MAX_BITS = 8
_CODES_PER_WORD = {1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2, 7: 1, 8: 1}


def packed_size(count: int, bits: int) -> int:
    """Return the bytes that ``count`` codes of ``bits`` bits take.

    >>> packed_size(128, 3), packed_size(5, 3)
    (48, 2)
    """
    return -(-count * bits // 8)


def pack(codes: mx.array, bits: int) -> mx.array:
    """Pack codes along the last axis.

    Args:
        codes: unsigned ``[..., n]``, each below ``2**bits``.
        bits: 1 to 8.

    Returns:
        uint8 ``[..., packed_size(n, bits)]``.

    Example:
        >>> pack(mx.array([1, 2, 3, 0], mx.uint8), 2).tolist()
        [57]
    """
    size = packed_size(codes.shape[-1], bits)
    if bits == 8:
        return codes.astype(mx.uint8)
    shifts = mx.arange(bits, dtype=mx.uint8)
    stream = ((codes.astype(mx.uint8)[..., None] >> shifts) & 1).flatten(-2)
    missing = 8 * size - stream.shape[-1]
    if missing:
        stream = mx.pad(stream, [(0, 0)] * (stream.ndim - 1) + [(0, missing)])
    in_bytes = stream.reshape(*stream.shape[:-1], size, 8) << mx.arange(8, dtype=mx.uint8)
    return in_bytes.sum(axis=-1).astype(mx.uint8)


def word_table(values: mx.array, bits: int) -> mx.array:
    """Return what each word of codes stands for: ``[words, codes per word]``.

    Args:
        values: ``[2**bits]``: what each code stands for.
        bits: 1 to 8.
    """
    per_word = _CODES_PER_WORD[bits]
    words = np.arange(2 ** (per_word * bits))[:, None]
    codes = (words >> (bits * np.arange(per_word))) & (2**bits - 1)
    return values[mx.array(codes.astype(np.int32))]


def unpack(packed: mx.array, table: mx.array, bits: int, count: int) -> mx.array:
    """Look up packed codes.

    Args:
        packed: uint8 ``[..., packed_size(count, bits)]``.
        table: of :func:`word_table`, for these bits.
        bits: 1 to 8.
        count: codes along the last axis.

    Returns:
        ``[..., count]`` in the dtype of the table.

    Example:
        >>> table = word_table(mx.array([0.0, 0.5, 1.0, 2.0]), 2)
        >>> unpack(mx.array([57], mx.uint8), table, 2, 4).tolist()
        [0.5, 1.0, 2.0, 0.0]
    """
    words = _words(packed, bits, count)
    return mx.take(table, words, axis=0).flatten(-2)[..., :count]


def _words(packed: mx.array, bits: int, count: int) -> mx.array:
    per_word = _CODES_PER_WORD[bits]
    size = per_word * bits
    if size == 8:
        return packed
    low, high, shift = _places(size, -(-count // per_word), packed.shape[-1])
    both = packed[..., low].astype(mx.uint16) | (packed[..., high].astype(mx.uint16) << 8)
    words: mx.array = (both >> shift) & (2**size - 1)
    return words


@cache
def _places(size: int, num_words: int, num_bytes: int) -> tuple[mx.array, mx.array, mx.array]:
    """The two bytes that hold each word, and where in them it begins."""
    first = size * np.arange(num_words)
    low = first // 8
    high = np.minimum(low + 1, num_bytes - 1)
    return mx.array(low), mx.array(high), mx.array((first % 8).astype(np.uint16))

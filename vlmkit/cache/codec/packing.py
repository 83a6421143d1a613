"""Codes of 1 to 8 bits, packed without gaps, and read back through a table of what they stand for.

Codes lie in a stream of bits, low bits first. A word is so many codes that two bytes always hold
it: reading looks up whole words, not single codes.
"""

from __future__ import annotations

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
    count = codes.shape[-1]
    wide = mx.uint32 if bits <= 4 else mx.uint64  # eight codes fill ``bits`` bytes of one number
    missing = -count % 8
    if missing:
        codes = mx.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    eights = codes.astype(wide).reshape(*codes.shape[:-1], codes.shape[-1] // 8, 8)
    numbers = (eights << (bits * mx.arange(8)).astype(wide)).sum(axis=-1)
    in_bytes = numbers[..., None].view(mx.uint8)[..., :bits].flatten(-2)
    return in_bytes[..., : packed_size(count, bits)]


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
    missing = -packed.shape[-1] % bits
    if missing:
        packed = mx.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, missing)])
    eights = packed.reshape(*packed.shape[:-1], packed.shape[-1] // bits, bits)
    found = []
    for first in range(0, 8 * bits, size):
        at, shift = divmod(first, 8)
        word = eights[..., at].astype(mx.uint16) >> shift
        if shift + size > 8:
            word = word | (eights[..., at + 1].astype(mx.uint16) << (8 - shift))
        found.append(word & (2**size - 1))
    words = mx.stack(found, axis=-1).flatten(-2)
    return words[..., : -(-count // per_word)]

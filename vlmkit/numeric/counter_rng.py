"""Counter-based random numbers: a draw is a function of its counter, so no stream is shared.

Batch size, row order, threads and the number of earlier draws can't change a number.

Reference:
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The mixing
    function here is BLAKE2b (RFC 7693) instead of Threefry: one call per token costs a microsecond
    on the host, and it is in the standard library.
"""

from __future__ import annotations

import hashlib
import struct

from vlmkit.errors import VlmkitError

_LIMIT = 1 << 64
_WORDS = struct.Struct("<16I")  # one BLAKE2b digest
_COUNTER = struct.Struct("<QQQQ")


def uniform(seed: int, sample: int, position: int, stream: int = 0) -> float:
    """Return the uniform number in ``[0, 1)`` that belongs to a counter.

    ``u = floor(h / 2^8) / 2^24`` for one 32-bit word ``h`` of ``BLAKE2b(seed, sample, position,
    stream)``. It has 24 bits, so float32 holds it exactly and it never rounds up to 1.

    Args:
        seed: the run's seed, ``0 <= seed < 2**64``.
        sample: which sample (prompt, repetition) of the run, same range.
        position: which token of the sample, same range.
        stream: which of the position's independent numbers, same range.

    Raises:
        VlmkitError: a counter is outside ``[0, 2**64)``.

    Example:
        >>> uniform(0, sample=0, position=0) == uniform(0, sample=0, position=0)
        True
        >>> uniform(0, sample=0, position=0) == uniform(1, sample=0, position=0)
        False
    """
    block, word = divmod(stream, 16)
    return _block(seed, sample, position, block)[word]


def uniforms(seed: int, sample: int, position: int, num_streams: int) -> list[float]:
    """Return ``uniform(seed, sample, position, stream)`` for streams ``0 .. num_streams - 1``.

    Example:
        >>> uniforms(7, 0, 3, num_streams=2) == [uniform(7, 0, 3, 0), uniform(7, 0, 3, 1)]
        True
    """
    numbers: list[float] = []
    for block in range((num_streams + 15) // 16):
        numbers += _block(seed, sample, position, block)
    return numbers[:num_streams]


def _block(seed: int, sample: int, position: int, block: int) -> list[float]:
    counter = (seed, sample, position, block)
    try:
        packed = _COUNTER.pack(*counter)
    except struct.error as error:
        names = ("seed", "sample", "position", "stream")
        wrong = [
            f"{name} {value!r}"
            for name, value in zip(names, counter, strict=True)
            if not isinstance(value, int) or not 0 <= value < _LIMIT
        ]
        raise VlmkitError(f"{', '.join(wrong)}: needs an integer from 0 to 2**64 - 1") from error
    digest = hashlib.blake2b(packed, digest_size=64, person=b"vlmkit.random").digest()
    return [(word >> 8) * 2.0**-24 for word in _WORDS.unpack(digest)]

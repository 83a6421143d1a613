"""Numbers of seven bits a byte, as protocol buffers and Thrift write them."""

from __future__ import annotations


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it.

    Raises:
        IndexError: the bytes end within it.
        ValueError: it has more than 70 bits.

    Example:
        >>> read_varint(bytes([0b1010_1100, 0b10, 7]), 0)
        (300, 2)

    Reference: Protocol Buffers, "Encoding", protobuf.dev.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number without an end")

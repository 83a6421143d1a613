"""What a SentencePiece model may say before a library is let at it.

Only its wire format is read: fields by number, without their meaning beyond those looked at.

Reference: https://protobuf.dev/programming-guides/encoding, and google/sentencepiece,
src/sentencepiece_model.proto (pieces = 1, normalizer_spec = 3).
"""

from __future__ import annotations

from collections.abc import Iterator

from vlmkit.errors import VlmkitError
from vlmkit.files.varint import read_varint
from vlmkit.processors.tokenizer_limits import MAX_IDS, OTHER, check_charsmap, check_token_length

_PIECES, _NORMALIZER = 1, 3  # of the model
_TEXT, _CHARSMAP = 1, 2  # of a piece, and of the normalizer
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def check_sentencepiece(data: bytes, place: str) -> None:
    """Refuse a model with too many or too long pieces, or a broken table of characters.

    Args:
        data: of the file.
        place: what errors call it.

    Raises:
        VlmkitError: says what it is.

    Example:
        >>> check_sentencepiece(bytes([0x0A, 3, 0x0A, 1, 97]), "tokenizer.model")
        >>> check_sentencepiece(b"none", "tokenizer.model")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: tokenizer.model: no SentencePiece model; take the one of the \
original checkpoint
    """
    count, longest = 0, 0
    try:
        for number, value in _fields(data):
            if number == _PIECES:
                count += 1
                longest = max([longest, *(len(v) for n, v in _fields(value) if n == _TEXT)])
            elif number == _NORMALIZER:
                for inner, table in _fields(value):
                    if inner == _CHARSMAP and table:
                        check_charsmap(table, place)
    except (IndexError, ValueError) as error:
        if isinstance(error, VlmkitError):
            raise
        raise VlmkitError(f"{place}: no SentencePiece model; {OTHER}") from error
    if count >= MAX_IDS:
        raise VlmkitError(f"{place}: it has {count:,} pieces, and ids are below {MAX_IDS:,}")
    check_token_length(longest, place)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each field that holds bytes, with its number."""
    place = 0
    while place < len(data):
        tag, place = read_varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = read_varint(data, place)
            continue
        if kind == _BYTES:
            length, place = read_varint(data, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("no such kind of field")
        if place + length > len(data):
            raise ValueError("a field that is cut off")
        if kind == _BYTES:
            yield tag >> 3, data[place : place + length]
        place += length

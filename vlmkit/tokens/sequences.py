"""Token sequences in a growing row of tokens, matched whole in amortised constant time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TokenSequence(NamedTuple):
    """A sequence to look for, with its failure function."""

    ids: tuple[int, ...]
    borders: tuple[int, ...]  # borders[i]: longest proper prefix of ids[:i + 1] that also ends it


def token_sequence(ids: Sequence[int]) -> TokenSequence:
    """Prepare a non-empty token sequence for :func:`advance`."""
    borders = [0]
    for token_id in ids[1:]:
        length = borders[-1]
        while length and ids[length] != token_id:
            length = borders[length - 1]
        borders.append(length + (ids[length] == token_id))
    return TokenSequence(tuple(ids), tuple(borders))


def advance(sequence: TokenSequence, matched: int, token_id: int) -> int:
    """Return how many leading ids of ``sequence`` the tokens end with, after one more token.

    Args:
        sequence: what is looked for.
        matched: the value before this token, less than the sequence's length. After a complete
            match go on with 0.
        token_id: the new token.

    Example:
        >>> sequence = token_sequence([1, 1, 2])
        >>> matched = 0
        >>> for token_id in [1, 1, 1, 2]:
        ...     matched = advance(sequence, matched, token_id)
        >>> matched
        3

    Reference:
        Knuth, Morris, Pratt, "Fast pattern matching in strings", SIAM J. Comput. 6(2), 1977.
    """
    while matched and sequence.ids[matched] != token_id:
        matched = sequence.borders[matched - 1]
    return matched + (sequence.ids[matched] == token_id)

"""Stop strings in growing text: find the first, and tell from where one may still come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple


class TextStops(NamedTuple):
    """Stop strings, prepared for incremental search. Takes memory in proportion to them."""

    sequences: tuple[str, ...]  # sorted
    firsts: frozenset[str]  # the first characters
    inner: frozenset[str]  # all characters but the last ones
    longest: int  # characters of the longest stop string


def text_stops(sequences: Sequence[str]) -> TextStops:
    """Prepare non-empty stop strings for :func:`find_stop` and :func:`held_from`."""
    return TextStops(
        sequences=tuple(sorted(set(sequences))),
        firsts=frozenset(text[0] for text in sequences),
        inner=frozenset(character for text in sequences for character in text[:-1]),
        longest=max((len(text) for text in sequences), default=0),
    )


def find_stop(stops: TextStops, text: str, start: int, after: int = 0) -> tuple[int, str] | None:
    """Find the stop string in ``text[start:]`` that begins first; of equal ones the longest.

    Args:
        stops: the prepared stop strings.
        text: all text so far.
        start: character at which a match may begin at the earliest.
        after: character behind which a match has to end.

    Returns:
        The character at which it begins, and the stop string; ``None`` when there is none.

    Example:
        >>> find_stop(text_stops(["b", "bc"]), "abcd", 0)
        (1, 'bc')
        >>> find_stop(text_stops(["b", "bc"]), "abcb", 0, after=3)
        (3, 'b')
    """
    found: tuple[int, str] | None = None
    for sequence in stops.sequences:
        begin = text.find(sequence, max(start, after - len(sequence) + 1))
        if begin >= 0 and (found is None or (begin, -len(sequence)) < (found[0], -len(found[1]))):
            found = begin, sequence
    return found


def held_from(stops: TextStops, text: str, start: int) -> int | None:
    """Return the first character at or after ``start`` that may yet begin a stop string.

    Example:
        >>> held_from(text_stops(["END"]), "the EN", 0)
        4
    """
    if text[-1:] not in stops.inner:
        return None
    for begin in range(max(start, len(text) - stops.longest + 1), len(text)):
        if text[begin] in stops.firsts and _begins_one(stops, text[begin:]):
            return begin
    return None


def _begins_one(stops: TextStops, text: str) -> bool:
    """Whether a stop string begins with this text and goes on."""
    place = bisect_left(stops.sequences, text)
    if place < len(stops.sequences) and stops.sequences[place] == text:
        place += 1  # it ends there; another may go on
    return place < len(stops.sequences) and stops.sequences[place].startswith(text)

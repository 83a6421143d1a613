"""Words in one line of a message: of the data, and of what is counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LONGEST = 200  # characters


def plain(text: object) -> str:
    """A name as it is, or quoted where it would break the line.

    Example:
        >>> plain("a b"), plain("a\\nb")
        ('a b', "'a\\\\nb'")
    """
    name = str(text)
    return name if name.isprintable() else repr(name)


def listed(names: Iterable[object]) -> str:
    """Names in a row, cut where they are too many.

    Example:
        >>> listed(["id", "question"]), listed([])
        ('id, question', 'none')
    """
    return _cut(", ".join(map(plain, names)) or "none", LONGEST)


def short(item: Any) -> str:
    """A value in Python's notation, cut where it is long.

    Example:
        >>> short("x" * 100)[-6:]
        'xxxxx…'
    """
    return _cut(repr(item), 60)


def plural(count: int) -> str:
    """The ``s`` of a word that is counted."""
    return "" if count == 1 else "s"


def counted(count: int, word: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "seed"), counted(12000, "sample")
        ('1 seed', '12,000 samples')
    """
    return f"{count:,} {word}{plural(count)}"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"

"""Words of the data in one line of a message."""

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


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"

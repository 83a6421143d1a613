"""The lettered choices of a multiple-choice question, however the data write them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

MAX_ITEMS = 10_000
"""Of a list in Python's notation, whose every item takes a kilobyte while it is read."""
LIST_FIELDS = ("choices", "options")


def choices_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return letter -> text, empty where the question has no choices.

    They are written as a list under ``choices`` or ``options`` (also as the text of a Python list,
    as in MMMU's files), as a mapping of letters there, or as columns ``A``, ``B``, … of which the
    empty ones do not count.

    Example:
        >>> choices_of({"options": "['a cat', 'a dog']"})
        {'A': 'a cat', 'B': 'a dog'}
        >>> choices_of({"A": "red", "B": "blue", "C": None})
        {'A': 'red', 'B': 'blue'}
    """
    for name in LIST_FIELDS:
        value = fields.get(name)
        if isinstance(value, str):
            value = text_list(value)
        if isinstance(value, Mapping) and value:
            return {str(letter): str(text) for letter, text in value.items()}
        if isinstance(value, (list, tuple)) and value:
            return {letter: str(text) for letter, text in zip(ascii_uppercase, value, strict=False)}
    return {
        letter: str(fields[letter])
        for letter in ascii_uppercase
        if fields.get(letter) not in (None, "")
    }


def text_list(text: str) -> list[Any] | None:
    """The list that a text spells in Python's notation, None where it spells none.

    Example:
        >>> text_list("['a', 'b']"), text_list("[sic] a")
        (['a', 'b'], None)
    """
    is_list = text.startswith("[") and text.endswith("]")
    if not is_list or max(text.count(","), text.count("[")) > MAX_ITEMS:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None

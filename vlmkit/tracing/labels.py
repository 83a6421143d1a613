"""Token text that can be shown: one line, nothing invisible, no longer than there is room for."""

from __future__ import annotations

import re
import unicodedata

MAX_SHOWN = 2000
"""Characters of a text of which a line is shown."""
_ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": r"\\", " ": "␣"}
_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
_RUN = re.compile(r"(␣|\\n|\\t)\1{4,}")


def visible(text: str) -> str:
    r"""Show spaces as ``␣`` and write out whatever else could not be seen.

    >>> visible(" a"), visible("\n\t"), visible(" " * 16), visible("a\u200bb\x1b")
    ('␣a', '\\n\\t', '␣×16', 'a\\u200bb\\x1b')
    """
    shown = "".join(map(_show, text[:MAX_SHOWN]))
    if text and unicodedata.category(text[0]) in ("Mn", "Me"):
        shown = "◌" + shown  # an accent needs something to stand on
    return _RUN.sub(lambda run: f"{run[1]}×{len(run[0]) // len(run[1])}", shown)


def plain(text: str) -> str:
    r"""As `visible`, for text that is read as a whole: single spaces stay.

    >>> plain("a red\nstar")
    'a red\\nstar'
    """
    return "".join(character if character == " " else _show(character) for character in text)


def token_label(token_id: int, text: str, width: int) -> str:
    """Name a token in at most ``width`` columns: by its text, or its id where that is not enough.

    >>> token_label(7, " star", 20), token_label(7, "", 20), token_label(7, "\\ufffd", 20)
    ('␣star', '#7', '\ufffd#7')
    """
    if not text:
        return f"#{token_id}"
    if "\ufffd" in text:  # a part of a character: many tokens look like this
        return shorten(f"{visible(text)}#{token_id}", width)
    return shorten(visible(text), width)


def shorten(text: str, width: int) -> str:
    """Cut a line to ``width`` terminal columns, with an ellipsis.

    >>> shorten("triangle", 5), shorten("円の中心", 5)
    ('tria…', '円の…')
    """
    if columns(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += columns(character)
        if used > width - 1:
            break
        kept += character
    return kept + "…"


def shorten_left(text: str, width: int) -> str:
    """Cut the beginning of a line, so that its end takes at most ``width`` columns.

    >>> shorten_left("triangle", 5)
    '…ngle'
    """
    if columns(text) <= width:
        return text
    return "…" + shorten(text[::-1], width)[-2::-1]


def columns(text: str) -> int:
    """How many terminal columns a line takes.

    >>> columns("円 a")
    4
    """
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _show(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if unicodedata.category(character) in _INVISIBLE:
        return character.encode("unicode_escape").decode()
    return character

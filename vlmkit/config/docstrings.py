"""Docstrings as text for a terminal: the description, the arguments, the reference."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

_HEADING = re.compile(r"^(Args|Returns|Yields|Raises|Example|Examples|Reference):[ \n]", re.M)
_ROLE = re.compile(r":(?:func|class|meth|mod):`~?(?:[\w.]*\.)?(\w+)`")
_CODE = re.compile(r"(`{1,2})(.+?)\1", re.S)
_ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): (.*(?:\n +.*)*)", re.M)


class Docstring(NamedTuple):
    """The parts that a reader without the code wants."""

    paragraphs: tuple[str, ...]  # the first is one line
    arguments: dict[str, str]
    reference: str  # empty where nothing is cited
    mentions: frozenset[str]  # what stands between backticks


def read_docstring(thing: object) -> Docstring:
    """Take a docstring apart; one that is missing is empty.

    Example:
        >>> def f(p):
        ...     '''Keep ``p`` as :func:`a.top_p` does.
        ...
        ...     Args:
        ...         p: a share,
        ...             at most 1.
        ...
        ...     Reference:
        ...         Me, 2024.
        ...     '''
        >>> read_docstring(f)[:3]
        (('Keep p as top_p does.',), {'p': 'a share, at most 1.'}, 'Me, 2024.')
    """
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    pieces = _HEADING.split(text)
    named = {
        name: inspect.cleandoc("\n" + part if part.startswith(" ") else part).strip()
        for name, part in zip(pieces[1::2], pieces[2::2], strict=True)
    }
    arguments = {
        name: " ".join(plain(description).split())
        for names, description in _ARGUMENT.findall(named.get("Args", ""))
        for name in names.split(", ")
    }
    paragraphs = [part.strip("\n") for part in re.split(r"\n\s*\n", pieces[0]) if part.strip()]
    return Docstring(
        paragraphs=tuple(map(plain, paragraphs)),
        arguments=arguments,
        reference=plain(named.get("Reference", "")),
        mentions=frozenset(match[1] for match in _CODE.findall(pieces[0])),
    )


def plain(text: str) -> str:
    """Take the mark-up out of a text.

    >>> plain("``p`` of :func:`vlmkit.sampling.top_p`")
    'p of top_p'
    """
    return _CODE.sub(r"\2", _ROLE.sub(r"\1", text))

"""Which fonts are there, and what they can draw: token text comes in every script."""

from __future__ import annotations

from typing import NamedTuple

_FAMILIES = ("DejaVu Sans Mono", "DejaVu Sans")  # come with matplotlib
_FURTHER_FAMILIES = (  # used where they are installed
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans Mono CJK JP",
    "Source Han Sans",
    "Hiragino Sans",
    "PingFang SC",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
)


class Fonts(NamedTuple):
    """Families by preference: a later one draws what an earlier one cannot."""

    mono: list[str]
    sans: list[str]
    known: frozenset[int]  # code points that they can draw, in regular and in bold


def find_fonts() -> Fonts:
    """Look up the installed families.

    Example:
        >>> fonts = find_fonts()
        >>> fonts.mono[0], ord("A") in fonts.known
        ('DejaVu Sans Mono', True)
    """
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    installed = {entry.name for entry in fontManager.ttflist}
    families = [name for name in (*_FAMILIES, *_FURTHER_FAMILIES) if name in installed]

    def covered(weight: str) -> set[int]:
        points: set[int] = set()
        for name in families:
            path = findfont(FontProperties(family=[name], weight=weight))
            points.update(get_font(path).get_charmap())
        return points

    # the replacement character is wider than its place, and so runs into the next one
    known = frozenset(covered("normal") & covered("bold")) - {ord("\ufffd")}
    return Fonts(families, [name for name in families if name != _FAMILIES[0]], known)


def drawable(text: str, fonts: Fonts) -> str:
    """Write out the characters that no font has.

    >>> drawable("a\\U0010ffff", find_fonts())
    'a\\\\U0010ffff'
    """
    return "".join(
        character if ord(character) in fonts.known else character.encode("unicode_escape").decode()
        for character in text
    )

r"""Text of others that can be shown: on one line where it must be, without terminal commands.

A control character (C0, C1, DEL), one that turns the direction of writing, or half of a surrogate
pair is written out as Python writes it, ``\x1b`` or ``\u202e``. What joins letters and emoji stays.

Reference:
    ECMA-48, "Control functions for coded character sets"; Unicode Technical Standard 55, "Unicode
    source code handling", section 2.1 (line terminators and bidirectional controls).
"""

from __future__ import annotations

import re

MAX_MESSAGE = 1000
"""Characters of an error: some lines of a terminal; what is longer echoes its input."""

_CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for the tab and the new line, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029\ud800-\udfff"
)
_CONTROL = re.compile(f"[{_CONTROLS}]")
_BREAK = re.compile("[ \\t]*[\\n\\t\\r\\v\\f\x1c-\x1f\x85\u2028\u2029]+\\s*")
_JSON_CONTROL = re.compile(f"[{_CONTROLS}]")
_ADDRESS = re.compile(r"\b(?:https?:|[a-z][a-z0-9+.-]*:[\\/]{2})[^\s'\"<>]+", re.IGNORECASE)
_USER = re.compile(r"^([a-z][a-z0-9+.-]*:[\\/]*)[^\\/?#]*@", re.IGNORECASE)
_VALUE = re.compile(r"([?&;#][^=&;#]*=)([^&;#]+)")
_SECRET_NAMES = ("token", "key", "sig", "secret", "pass", "pwd", "auth", "cred", "code", "session")
_LONG_VALUE = 24  # characters of a value that may be a key, whatever its name
_TAIL = 240  # characters kept of the end of a long message, where it says what would work


def printable(text: str) -> str:
    r"""Write out what would command a terminal; new lines and tabs stay.

    Example:
        >>> printable("a\x1b[2Jb\n\u202ec")
        'a\\x1b[2Jb\n\\u202ec'
    """
    return _CONTROL.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""The same for a JSON document, whose escapes mean the same characters.

    Example:
        >>> printable_json('"a\x9bb"')
        '"a\\u009bb"'
    """
    return _JSON_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def mask_secrets(text: str) -> str:
    """Take passwords, and what looks like a key in a query, out of the web addresses in a text.

    Example:
        >>> mask_secrets("see https://me:pw@a.org/b.png?size=2&token=abc#c .")
        'see https://***@a.org/b.png?size=2&token=***#c .'
    """
    return _ADDRESS.sub(lambda found: mask_address(found[0]), text)


def mask_address(address: str) -> str:
    """The same for a text that is one web address, spaces in it included.

    Example:
        >>> mask_address("http:\\\\me:my password@a.org")
        'http:\\\\***@a.org'
    """
    return _VALUE.sub(_mask_value, _USER.sub(r"\1***@", address))


def _mask_value(found: re.Match[str]) -> str:
    name, value = found.groups()
    is_secret = len(value) >= _LONG_VALUE or any(word in name.lower() for word in _SECRET_NAMES)
    return f"{name}***" if is_secret else found[0]


def one_line(text: str, longest: int = MAX_MESSAGE) -> str:
    r"""Return a text on one line, printable, without secrets, cut in its middle if it is too long.

    Example:
        >>> one_line("two\n lines\x07"), len(one_line("x" * 10**6))
        ('two lines\\x07', 1000)
    """
    text = mask_secrets(text)
    if len(text) > 2 * longest:  # before more is replaced in it
        text = _cut(text, 2 * longest)
    return _cut(printable(_BREAK.sub(" ", text)).strip(), longest)


def shorten(text: str, longest: int) -> str:
    """Cut a text at its end, with an ellipsis.

    Example:
        >>> shorten("abcdef", 4)
        'abc…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    tail = min(_TAIL, longest // 4)
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()

"""What commands print: nothing in it commands the terminal, and thinking is shown dimmed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from vlmkit.printable import one_line, printable, printable_json

_DIM, NORMAL = "\x1b[2m", "\x1b[22m"


def say(*lines: object, end: str = "\n") -> None:
    r"""Print lines to stdout; control characters of names and texts are written out.

    Example:
        >>> say("a\x1b[31mb")
        a\x1b[31mb
    """
    print(printable("\n".join(map(str, lines))), end=end, flush=True)


def say_json(document: str) -> None:
    """Print a JSON document to stdout; control characters in it are escaped as JSON does."""
    print(printable_json(document), flush=True)


def warn(message: str) -> None:
    """Print one line to stderr."""
    print(one_line(message), file=sys.stderr)


def shown(segments: Iterable[str]) -> Iterator[str]:
    """Text of a model for stdout: as it is for a file, printable on a terminal."""
    return map(printable, segments) if sys.stdout.isatty() else iter(segments)


def wants_colors() -> bool:
    """Whether output to a terminal may be coloured: see https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def dim_thinking(
    segments: Iterable[str], *, inside: bool, start: str = "<think>", end: str = "</think>"
) -> Iterator[str]:
    r"""Dim what stands between the markers; a marker may be spread over several segments.

    Args:
        segments: text as it comes.
        inside: whether the prompt has left a thinking block open.
        start: opens a block.
        end: closes it.

    Example:
        >>> "".join(dim_thinking(["a</th", "ink>b"], inside=True))
        '\x1b[2ma</think>\x1b[22mb'
    """
    pending = ""
    if inside:
        yield _DIM
    for segment in segments:
        pending += segment
        while (place := pending.find(end if inside else start)) >= 0:
            if inside:
                yield pending[: place + len(end)] + NORMAL
                pending = pending[place + len(end) :]
            else:
                yield pending[:place] + _DIM + start
                pending = pending[place + len(start) :]
            inside = not inside
        keep = _partial_match(pending, end if inside else start)
        yield pending[: len(pending) - keep]
        pending = pending[len(pending) - keep :]
    yield pending + (NORMAL if inside else "")


def is_inside(prompt: str, *, start: str = "<think>", end: str = "</think>") -> bool:
    """Whether a prompt's last thinking block is still open.

    >>> is_inside("<think></think> <think>"), is_inside("<think></think>")
    (True, False)
    """
    return prompt.rfind(start) > prompt.rfind(end)


def _partial_match(text: str, marker: str) -> int:
    """How many characters at the end of the text may be the beginning of the marker."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if marker.startswith(text[-length:]):
            return length
    return 0

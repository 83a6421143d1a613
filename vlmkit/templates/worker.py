"""The process that templates run in: it reads requests from its input and writes replies.

Each message is its length in 8 bytes and then a value written by :mod:`marshal`: values stay as
they are, with half surrogate pairs and keys that are no text.
"""

from __future__ import annotations

import marshal
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from vlmkit.errors import VlmkitError
from vlmkit.templates.environment import describe, render
from vlmkit.templates.limits import MAX_MEMORY_BYTES, MAX_SECONDS
from vlmkit.templates.template_errors import template_errors

LENGTH_BYTES = 8
READY = b"\n"


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the parent decides
    _lower(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _lower(resource.RLIMIT_CORE, 0)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    _write(replies, READY)
    while size := requests.read(LENGTH_BYTES):
        used = resource.getrusage(resource.RUSAGE_SELF)
        # Should the parent be gone, which otherwise ends what takes too long.
        _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + MAX_SECONDS + 2)
        _write(replies, frame(answer(marshal.loads(requests.read(int.from_bytes(size))))))


def frame(value: Any) -> bytes:
    """Return a message.

    Example:
        >>> len(frame(None))
        9
    """
    data = marshal.dumps(value)
    return len(data).to_bytes(LENGTH_BYTES) + data


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a template, or render it where there are ``values``.

    Returns:
        The fields of the result, or ``error``, one line.

    Example:
        >>> answer({"source": "{{ 1 / 0 }}", "place": "a.jinja", "values": {"messages": []}})
        {'error': 'a.jinja:1: the chat template fails: ZeroDivisionError: division by zero'}
    """
    values, source = request["values"], request["source"]
    try:
        with template_errors(request["place"], has_tools=bool(values and values.get("tools"))):
            if values is None:
                return describe(source)._asdict()
            return render(source, values)._asdict()
    except VlmkitError as error:
        return {"error": str(error)}


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (value, hard))
    except (ValueError, OSError):  # macOS has no limit of memory; the parent measures it
        return


def _write(replies: BinaryIO, data: bytes) -> None:
    replies.write(data)
    replies.flush()

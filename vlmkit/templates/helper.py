"""Run templates in a process of their own, which is ended when a template takes too much.

A template can ask for any amount of time and memory in one expression, and nothing within a
process can stop that. The process is started once and then waits for the next template; only the
templates that vlmkit brings along run without it.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
from collections.abc import Mapping
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.templates.environment import Described, Rendered, describe, render
from vlmkit.templates.limits import MAX_SOURCE_CHARS
from vlmkit.templates.process import HelperProcess
from vlmkit.templates.template_errors import template_errors

KNOWN_GOOD = frozenset({"0acfc16f3dcc68da2594ca00e6ad07048161291742629a91d6e2cebb8f97e52b"})
"""The SHA-256 of the templates that vlmkit brings along."""

_MAX_IDLE = 2
_idle: list[HelperProcess] = []
_lock = threading.Lock()


def describe_anywhere(source: str, place: str) -> Described:
    """Read a template's source.

    Raises:
        VlmkitError: it is broken or too long, or takes more time or memory than it may.

    Example:
        >>> describe_anywhere("{{ messages }}", "chat template").variables
        frozenset({'messages'})
    """
    if is_known_good(source):
        return describe(source)
    return Described(**_ask(source, place, None))


def render_anywhere(source: str, values: Mapping[str, Any], place: str) -> Rendered:
    """Render a template; see :func:`vlmkit.templates.environment.render`.

    Raises:
        VlmkitError: whatever it does wrong, or that it takes more time or memory than it may.

    Example:
        >>> render_anywhere("{{ 'a' * 5 }}", {"messages": []}, "a.jinja").text
        'aaaaa'
    """
    if is_known_good(source):
        with template_errors(place, has_tools=bool(values.get("tools"))):
            return render(source, values)
    return Rendered(**_ask(source, place, dict(values)))


def is_known_good(source: str) -> bool:
    """Whether a template is one that vlmkit brings along.

    Example:
        >>> is_known_good("{{ messages }}")
        False
    """
    return hashlib.sha256(source.encode(errors="replace")).hexdigest() in KNOWN_GOOD


def prepare(source: str | None) -> None:
    """Start the process ahead of time, where a template will need it; return at once."""
    if source is None or is_known_good(source) or _idle:
        return
    _put(HelperProcess())


def _ask(source: str, place: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    if len(source) > MAX_SOURCE_CHARS:
        raise VlmkitError(
            f"{place}: the chat template has {len(source):,} characters, more than the"
            f" {MAX_SOURCE_CHARS:,} of any real one; pass chat_template="
        )
    helper = _take()
    try:
        reply = helper.ask({"source": source, "place": place, "values": values}, place)
    except BaseException:  # also when interrupted: the reply would be taken for the next one's
        helper.end()
        raise
    _put(helper)
    if "error" in reply:
        raise VlmkitError(reply["error"])
    return reply


def _take() -> HelperProcess:
    with _lock:
        while _idle:
            helper = _idle.pop()
            if helper.is_alive():
                return helper
            helper.end()
    return HelperProcess()


def _put(helper: HelperProcess) -> None:
    with _lock:
        if len(_idle) < _MAX_IDLE:
            _idle.append(helper)
            return
    helper.end()


def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()


def _forget_all() -> None:
    """In a process that was forked: the helpers are the parent's."""
    global _lock
    _lock = threading.Lock()
    while _idle:
        _idle.pop().forget()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)

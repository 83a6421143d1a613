"""What a chat template can do wrong, told in one line with its file and its line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from vlmkit.errors import VlmkitError
from vlmkit.templates.limits import MAX_MEMORY_BYTES, MAX_OUTPUT_CHARS
from vlmkit.templates.watched import WATCHED_NAME

MAX_SHOWN = 300  # characters of a template's own message
SOURCE = "<template>"  # what jinja calls the file of a template that was given as text


class OutputLimitError(Exception):
    """A template writes more than ``MAX_OUTPUT_CHARS``."""


@contextmanager
def template_errors(place: str, *, has_tools: bool = False) -> Iterator[None]:
    """Turn whatever parsing or rendering a template raises into one line.

    A template is a program from outside: it may raise any exception, recurse without end or ask
    for more memory than there is.

    Args:
        place: what to call the template; a ``.jinja`` file gets the line as ``file:line``.
        has_tools: whether it was given tools, which some templates cannot describe.

    Example:
        >>> with template_errors("chat_template.jinja"):
        ...     raise TypeError("too few arguments")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: chat_template.jinja: the chat template fails: TypeError: too \
few arguments
    """
    import jinja2

    try:
        yield
    except VlmkitError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise VlmkitError(f"{_at(place, error.lineno)}: {_one_line(error.message)}") from error
    except jinja2.TemplateError as error:
        told = f"the chat template refuses these messages: {_one_line(error)}"
        raise VlmkitError(f"{_at(place, _line(error))}: {told}") from error
    except Exception as error:
        line = _line(error)
        raise VlmkitError(f"{_at(place, line)}: {_told(error, line, has_tools)}") from error


def _told(error: Exception, line: int | None, has_tools: bool) -> str:
    if isinstance(error, RecursionError) and line is None:  # not in the template, but reading it
        return "the chat template is nested too deeply to be read"
    if isinstance(error, RecursionError):
        advice = (
            "; many do so on a parameter type that they do not know: in tools, give each parameter"
            ' one type, not a list such as ["string", "null"], or pass chat_template='
        )
        return f"the chat template calls itself without end{advice if has_tools else ''}"
    if isinstance(error, OutputLimitError):
        return f"the chat template writes more than {MAX_OUTPUT_CHARS:,} characters"
    if isinstance(error, MemoryError):
        return f"the chat template asks for more memory than its {MAX_MEMORY_BYTES >> 20} MiB"
    if isinstance(error, SyntaxError):
        return f"the chat template cannot be compiled: {error.msg}"
    return f"the chat template fails: {type(error).__name__}: {_one_line(error)}"


def _line(error: Exception) -> int | None:
    """The template's line that was being rendered; the innermost one of macros."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == SOURCE]
    return lines[-1] if lines else None


def _at(place: str, line: int | None) -> str:
    if line is None:
        return place
    return f"{place}:{line}" if place.endswith(".jinja") else f"{place}, line {line}"


def _one_line(message: object) -> str:
    text = " ".join(str(message).replace(WATCHED_NAME, "message").split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"

"""The one error that users see: what is wrong, where it is, and what would work."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from vlmkit.printable import one_line

KeyPath = tuple[str | int, ...]
"""Where a value stands in a config: the keys and list indices that lead to it."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class VlmkitError(ValueError):
    """A mistake in the input: a path, a key, a value, a checkpoint.

    The message is one line that names the thing, where it is, and what would work. The command
    line prints it and leaves with exit code 2. Whatever it quotes, it stays one printable line of
    at most `vlmkit.printable.MAX_MESSAGE` characters.

    Args:
        message: the line.
        path: the key of a run's config that it is about; empty where there is none. Runs from
            files put the file and line of that key in front of the message.

    Example:
        >>> VlmkitError("sampling.0.p: must be at most 1", path=("sampling", 0, "p")).path
        ('sampling', 0, 'p')
    """

    def __init__(self, message: str = "", *, path: KeyPath = ()) -> None:
        super().__init__(one_line(message))
        self.path = path


class RanksError(VlmkitError):
    """What all ranks of a model know of: only one of them says it, in the same words."""


@contextmanager
def within(*keys: str | int) -> Iterator[None]:
    """Put the keys of a part of a config before the paths of errors that it makes.

    Example:
        >>> try:
        ...     with within("sampling", 0):
        ...         raise VlmkitError("must be at most 1", path=("p",))
        ... except VlmkitError as error:
        ...     error.path
        ('sampling', 0, 'p')
    """
    try:
        yield
    except VlmkitError as error:
        error.path = (*keys, *error.path)
        raise


def placed(function: Callable[Arguments, Result], *keys: str | int) -> Callable[Arguments, Result]:
    """Return a function whose errors have these keys before their paths, as by `within`."""

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:  # as `within` does, at a fraction of its time: this is called at every step
            return function(*args, **kwargs)
        except VlmkitError as error:
            error.path = (*keys, *error.path)
            raise

    return call


class VlmkitWarning(UserWarning):
    """What works, but perhaps not as expected; the command line prints it to stderr."""


MAX_COMPARED = 100
"""Characters of a name, and ten times as many names, that are compared to find the nearest."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string.

    >>> nearest("temprature", ["temperature", "top_p"])
    "; did you mean 'temperature'?"
    """
    if len(name) > MAX_COMPARED:
        return ""
    short = (other for other in known if len(other) <= MAX_COMPARED)
    some = list(itertools.islice(short, 10 * MAX_COMPARED))
    matches = difflib.get_close_matches(name, some, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


_MAX_SHOWN = 60  # characters of one value or key
_MAX_KEYS = 12


def brief(value: object) -> str:
    """Return a value as messages show it: on one line, not long, whatever it is.

    Example:
        >>> brief("a" * 99), brief(10**5000)
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...", 'a number of 5,001 digits')
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        if not isinstance(value, int):
            return f"a {type(value).__name__} with a number that is too long to show"
        return f"a number of {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply to show"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def dotted(path: KeyPath) -> str:
    """Return a path as messages show it, long keys cut.

    Example:
        >>> dotted(("sampling", 0, "p"))
        'sampling.0.p'
    """
    keys = [str(key) for key in path]
    if len(keys) > _MAX_KEYS:
        keys = [*keys[: _MAX_KEYS - 2], "...", keys[-1]]
    return ".".join(
        key if len(key) <= _MAX_SHOWN else key[: _MAX_SHOWN - 3] + "..." for key in keys
    )

"""The one error that users see: what is wrong, where it is, and what would work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlmkitError(ValueError):
    """A mistake in the input: a path, a key, a value, a checkpoint.

    The message is one line that names the thing, where it is, and what would work. The command
    line prints it and leaves with exit code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string.

    >>> nearest("temprature", ["temperature", "top_p"])
    "; did you mean 'temperature'?"
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class VlmkitWarning(UserWarning):
    """What works, but is likely not what was meant; the message fits on one line."""

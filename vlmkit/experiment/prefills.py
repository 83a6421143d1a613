"""What a prefill costs each of the responses that share it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class _Open(NamedTuple):
    """A prompt of which rows have not ended yet."""

    rows: int
    seconds: float = 0.0  # of its prefill, those taken left out
    added: tuple[float, ...] = ()  # which prefills are in it


class PrefillShares:
    """Divides the seconds of each prompt's prefill evenly among the rows that begin with it.

    However rows come and go, what they take adds up to what was spent.

    Example:
        >>> shares = PrefillShares()
        >>> for _ in range(4):
        ...     shares.expect("a prompt")
        >>> shares.add("a prompt", 10.5, 2.0)  # the row that came first computed it
        >>> [shares.take("a prompt") for _ in range(4)]
        [0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, _Open] = {}

    def expect(self, prompt: Hashable) -> None:
        """Say that one more row will begin with a prompt."""
        found = self._open.get(prompt, _Open(0))
        self._open[prompt] = found._replace(rows=found.rows + 1)

    def add(self, prompt: Hashable, began_s: float, seconds: float) -> None:
        """Take in a prefill that a row was part of.

        Args:
            prompt: of an expected row.
            began_s: when its rows had their first token; tells it from others.
            seconds: what it took for all rows of this prompt; counted once, whichever row says it.
        """
        found = self._open[prompt]
        if began_s not in found.added:
            added = (*found.added, began_s) if seconds else found.added
            self._open[prompt] = found._replace(seconds=found.seconds + seconds, added=added)

    def take(self, prompt: Hashable) -> float:
        """Return the share of a row that ends, in seconds."""
        found = self._open[prompt]
        share = found.seconds / found.rows
        self._open[prompt] = found._replace(seconds=found.seconds - share)
        self.leave(prompt)
        return share

    def leave(self, prompt: Hashable) -> None:
        """Let a row go; of one that failed, the share is left to the others."""
        found = self._open.pop(prompt)
        if found.rows > 1:
            self._open[prompt] = found._replace(rows=found.rows - 1)

"""Units of work, arm x sample x seed: which are done, without a list of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError
from vlmkit.experiment.reading import ScoreLine, read_scores
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS
from vlmkit.files import find_file


class Units:
    """A grid of units, and which of them are done; one byte each.

    Args:
        arms: names.
        samples: ids.
        seeds: of each arm and sample.

    Example:
        >>> units = Units(["a", "b"], ["x", "y", "z"], [0])
        >>> units.mark("b", "y", 0)
        >>> units.num_done, units.num_left, units.is_done(1, 1, 0)
        (1, 5, True)
    """

    def __init__(self, arms: Sequence[str], samples: Sequence[str], seeds: Sequence[int]) -> None:
        self.done: NDArray[np.bool_] = np.zeros((len(samples), len(arms), len(seeds)), np.bool_)
        self.num_errors = self.num_tokens = 0
        self.busy_s = 0.0  # of all rows that are done, side by side or not
        self._arms = {name: place for place, name in enumerate(arms)}
        self._samples = {name: place for place, name in enumerate(samples)}
        self.seeds = tuple(seeds)
        self._seeds = {seed: place for place, seed in enumerate(seeds)}

    def mark(self, arm: str, sample: str, seed: int) -> None:
        """Note that a unit is done.

        Raises:
            KeyError: there is no such unit.
        """
        self.done[self._samples[sample], self._arms[arm], self._seeds[seed]] = True

    def read(self, folder: Path) -> None:
        """Mark all units that a run directory has records of.

        Raises:
            VlmkitError: a record of no unit of this experiment.
        """
        path = folder / RECORDS
        for number, line in enumerate(read_scores(path) if find_file(path) else (), start=1):
            if line.sample not in self._samples and line.arm in self._arms:
                continue  # beyond limits.samples, which may be lower than it was
            try:
                self.mark(line.arm, line.sample, line.seed)
            except KeyError as error:
                raise VlmkitError(
                    f"{path}:{number}: {error.args[0]!r} is no part of this experiment"
                ) from None
            self.count(line)

    def take(self, line: ScoreLine) -> bool:
        """Mark and count what a record says; tell whether it is news and of this experiment."""
        sample, arm = self._samples.get(line.sample), self._arms.get(line.arm)
        seed = self._seeds.get(line.seed)
        if sample is None or arm is None or seed is None or self.done[sample, arm, seed]:
            return False
        self.done[sample, arm, seed] = True
        self.count(line)
        return True

    def count(self, line: ScoreLine | Record) -> None:
        """Add up what a record says of tokens, time and errors."""
        self.num_errors += line.error is not None
        self.num_tokens += line.generation_tokens
        self.busy_s += line.generation_s + line.prompt_s

    def is_done(self, sample: int, arm: int, seed: int) -> bool:
        """Tell whether a unit is done, by its places."""
        return bool(self.done[sample, arm, seed])

    @property
    def num_done(self) -> int:
        """How many are done."""
        return int(np.count_nonzero(self.done))

    @property
    def num_left(self) -> int:
        """How many are not."""
        return self.done.size - self.num_done

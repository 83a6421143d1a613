"""What a worker takes at a time: some neighbouring samples of one model's arms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from vlmkit.experiment.plan import Plan
from vlmkit.experiment.units import Units

_UNITS = 64  # about as many as run side by side
_SHARES = 64  # at least, so that workers end at about the same time


class Share(NamedTuple):
    """Samples ``start`` to ``stop`` (without it) of the arms of one group."""

    group: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The same for every worker of a run."""
        return f"{self.group}-{self.start}-{self.stop}"


def share_size(num_samples: int, units_per_sample: int) -> int:
    """Return how many samples a share has, by numbers that all workers of a run know.

    Example:
        >>> share_size(10_000, 80), share_size(1_000_000, 1), share_size(12, 4)
        (1, 64, 1)
    """
    return max(1, min(math.ceil(_UNITS / units_per_sample), math.ceil(num_samples / _SHARES)))


def shares_of(plan: Plan, group: int) -> Iterator[Share]:
    """Yield the shares of a group of arms."""
    number = len(plan.samples)
    size = share_size(number, plan.experiment.units_per_sample)
    for start in range(0, number, size):
        yield Share(group, start, min(start + size, number))


def is_done(plan: Plan, units: Units, share: Share) -> bool:
    """Tell whether nothing is left of a share."""
    arms = list(plan.groups[share.group].arms)
    return bool(units.done[share.start : share.stop, arms].all())

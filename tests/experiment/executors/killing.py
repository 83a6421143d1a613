"""Kills a worker in the middle of a run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from vlmkit.experiment.executors.about import read_workers
from vlmkit.experiment.progress import Silent
from vlmkit.experiment.records import Record
from vlmkit.experiment.units import Units


class Killing(Silent):
    """Kills one worker after some records."""

    def __init__(self, folder: str | Path, after: int) -> None:
        self._folder, self._after = Path(folder), after
        self.told: list[tuple[str, str, int]] = []
        self.killed: int | None = None

    def begin(self, units: Units) -> None:
        assert units.num_done == 0

    def advance(self, record: Record) -> None:
        self.told.append(record.unit)
        if len(self.told) == self._after:
            running = [about for about in read_workers(self._folder) if "ended" not in about]
            self.killed = int(running[0]["pid"])
            os.kill(self.killed, signal.SIGKILL)

"""How far a run is: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from vlmkit.experiment.records import Record
from vlmkit.experiment.units import Units
from vlmkit.printable import printable

_EVERY_S = 10.0


class Progress(Protocol):
    """Told of a run; a context manager around it."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show the end."""

    def begin(self, units: Units) -> None:
        """Take in what is done already; ``units`` goes on to say so."""

    def advance(self, record: Record) -> None:
        """Take in one more record."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def begin(self, units: Units) -> None:
        """See :class:`Progress`."""

    def advance(self, record: Record) -> None:
        """See :class:`Progress`."""


class _Speed:
    """Tokens and units of this call, and the time left."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.began = time.monotonic()
        self.done, self.tokens = units.num_done, units.num_tokens
        self.num_done = units.num_done  # counted on: counting anew costs too much for each record

    def text(self) -> str:
        elapsed = max(time.monotonic() - self.began, 1e-9)
        here = self.num_done - self.done
        left = self.units.done.size - self.num_done
        tokens = (self.units.num_tokens - self.tokens) / elapsed
        errors = f", {self.units.num_errors} errors" if self.units.num_errors else ""
        remaining = f", {_clock(elapsed / here * left)} left" if here and left else ""
        return f"{tokens:.0f} tokens/s{remaining}{errors}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


class Lines(Silent):
    """A line every ten seconds, and one at the end.

    Args:
        file: where to; None: stderr.
        every_s: seconds between lines.
    """

    def __init__(self, file: TextIO | None = None, every_s: float = _EVERY_S) -> None:
        self._file = sys.stderr if file is None else file
        self._every_s, self._shown = every_s, 0.0
        self._speed: _Speed | None = None

    def __exit__(self, *error: object) -> None:
        self._show()

    def begin(self, units: Units) -> None:
        """See :class:`Progress`."""
        self._speed, self._shown = _Speed(units), time.monotonic()
        if units.num_done:
            print(f"{units.num_done:,} of {units.done.size:,} units are done", file=self._file)

    def advance(self, record: Record) -> None:
        """See :class:`Progress`."""
        if self._speed is not None:
            self._speed.num_done += 1
        if time.monotonic() - self._shown >= self._every_s:
            self._show()

    def _show(self) -> None:
        speed = self._speed
        if speed is not None and speed.num_done > speed.done:
            total = speed.units.done.size
            print(
                f"{speed.num_done:,}/{total:,} units, {speed.text()}", file=self._file, flush=True
            )
        self._shown = time.monotonic()


class Bars(Silent):
    """A bar for the run and one for each arm, on stderr.

    Args:
        arms: the names of the arms to show; more than 20 share the one bar.
    """

    def __init__(self, arms: tuple[str, ...]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bars: Any = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            console=Console(stderr=True),
        )
        self._arms = arms if 1 < len(arms) <= 20 else ()
        self._tasks: dict[str, Any] = {}
        self._speed: _Speed | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def begin(self, units: Units) -> None:
        """See :class:`Progress`."""
        self._speed = _Speed(units)
        for place, name in enumerate(self._arms):
            of_arm = units.done[:, place]
            self._tasks[name] = self._bars.add_task(
                printable(name), total=of_arm.size, completed=int(of_arm.sum()), speed=""
            )
        self._tasks[""] = self._bars.add_task(
            "all", total=units.done.size, completed=units.num_done, speed=""
        )

    def advance(self, record: Record) -> None:
        """See :class:`Progress`."""
        assert self._speed is not None  # begin was called
        self._speed.num_done += 1
        if record.arm in self._tasks:
            self._bars.advance(self._tasks[record.arm])
        self._bars.update(self._tasks[""], advance=1, speed=self._speed.text())

"""Some workers that were started together, however that was done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Fleet(NamedTuple):
    """What to ask of workers, and to tell them."""

    num_alive: Callable[[], int]  # running, or waiting to be started
    stop: Callable[[], None]  # those that do not run yet; the others finish their step
    kill: Callable[[], None]
    problems: Callable[[], list[str]]  # of those that have ended: why, where it went wrong


class Start(NamedTuple):
    """How to start workers."""

    folder: Path  # the run directory, absolute
    num_workers: int
    options: dict[str, Any]  # keyword arguments of work()
    resources: dict[str, Any]  # what each needs, in words of the executor


def run_worker(folder: str, options: dict[str, Any], cwd: str) -> str:
    """Run one worker where an executor wants a function; returns how it ended.

    Args:
        folder: the run directory, absolute.
        options: keyword arguments of work().
        cwd: of the command that started it, for checkpoints and code that are named relative to it.
    """
    from vlmkit.experiment.executors.worker import work

    if os.path.isdir(cwd):
        os.chdir(cwd)
    return work(folder, **options).status

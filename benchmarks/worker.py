"""A toolkit in a process of its own: it loads a checkpoint once, then does what it is asked.

    python -m benchmarks.worker vlmkit FOLDER --dtype float32

One JSON object per line comes in, one goes out: ``{"task": "generate", ...}`` and what the task
returns. So systems can take turns (A B B A) without loading again, and no library of one is in the
process of another: peers run as they are installed. What libraries print goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

TOOLKITS = {
    "vlmkit": "benchmarks.tasks_vlmkit",
    "mlx-vlm": "benchmarks.tasks_mlx_vlm",
    "transformers": "benchmarks.tasks_transformers",
}
NEEDS = {"vlmkit": "vlmkit", "mlx-vlm": "mlx_vlm", "transformers": "torch"}
PAUSE_S = 0.4
"""Between turns: threads of a BLAS spin for a while after a product."""

Answer = dict[str, Any]
Way = Callable[[], Answer]


def is_installed(toolkit: str) -> bool:
    """Whether a toolkit's package can be imported."""
    return importlib.util.find_spec(NEEDS[toolkit]) is not None


class System:
    """A running worker.

    Args:
        toolkit: one of ``TOOLKITS``.
        folder: of the checkpoint.
        dtype: of the weights; None: as the toolkit loads them.
    """

    def __init__(self, toolkit: str, folder: Path, dtype: str | None = None) -> None:
        self.name = toolkit if dtype is None else f"{toolkit} {dtype}"
        command = [sys.executable, "-m", "benchmarks.worker", toolkit, str(folder)]
        command += [] if dtype is None else ["--dtype", dtype]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._answer()

    def ask(self, task: str, **values: Any) -> Answer:
        """Have a task done; returns its figures."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"task": task, **values}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read()[-2000:]
            self._close()
            raise SystemExit(f"{self.name} failed:\n{said}")
        answer: Answer = json.loads(line)
        return answer

    def __enter__(self) -> System:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # the end of its work
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def alternate(ways: Mapping[str, Way], rounds: int) -> dict[str, list[Answer]]:
    """Take every way once per round, in alternating order, with a pause before each."""
    found: dict[str, list[Answer]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways) if turn % 2 == 0 else list(ways)[::-1]:
            time.sleep(PAUSE_S)
            found[name].append(ways[name]())
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("toolkit", choices=TOOLKITS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype")
    options = parser.parse_args(arguments)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    make = importlib.import_module(TOOLKITS[options.toolkit]).tasks
    tasks = make(options.folder, options.dtype)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        values = json.loads(line)
        answer = tasks[values.pop("task")](**values)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

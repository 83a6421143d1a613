"""A run directory that workers share, and workers as processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.experiment.studies import outcome, write_study
from vlmkit.experiment.executors import run_with
from vlmkit.experiment.reading import read_records, record_files
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS

ROOT = Path(__file__).parent.parent.parent.parent
STUDY = """
base: {stopping: [{kind: max_tokens, max_tokens: 12}]}
dataset: {kind: shapes, num_samples: 8}
metrics: {right: {kind: exact}}
arms:
  greedy: {}
  warm: {sampling: [{kind: temperature, temperature: 2.0}]}
  affine: {cache: {kind: affine, bits: 8, group_size: 32}}
seeds: [0, 1, 2]
"""
NUM_UNITS = 8 * 3 * 3
Outcome = dict[tuple[str, str, int], Any]
PATIENCE_S = 120.0


def prepared(folder: Path, text: str = STUDY) -> Path:
    """A run directory of which nothing is done."""
    run = run_with("worker", write_study(folder, text), folder / "run", num_workers=0)
    assert run.status == "prepared"
    return folder / "run"


@contextlib.contextmanager
def a_worker(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """Begin ``vlmkit worker``; what still runs at the end is killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "vlmkit", "worker", str(folder), "--batch-size", "3", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(is_so: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until something is so, while a process runs."""
    began = time.monotonic()
    while not is_so():
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.01)


def records_of(folder: Path, pid: int) -> int:
    """How many whole records a worker has written."""
    (path,) = list((folder / "workers").glob(f"*-{pid}-*.jsonl")) or [None]
    return 0 if path is None else path.read_bytes().count(b"\n")


def all_units(folder: Path) -> Counter[tuple[str, str, int]]:
    """How often each unit was written, in all files together."""
    found: Counter[tuple[str, str, int]] = Counter()
    for path in record_files(folder / RECORDS):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found[msgspec.json.decode(line, type=Record).unit] += 1
    return found


def merged(folder: Path) -> Outcome:
    """The run's records as readers see them, by unit."""
    return outcome(read_records(folder / RECORDS))

"""A run that is killed again and again ends with the records of one that never was."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiment.studies import outcome, write_study
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.store import RECORDS

ROOT = Path(__file__).parent.parent.parent
SCRIPT = """
import sys
from vlmkit.experiment.progress import Silent
from vlmkit.experiment.runner import run_experiment

class Telling(Silent):
    def begin(self, units):
        print("begun", flush=True)

    def advance(self, record):
        print("record", flush=True)

run = run_experiment(sys.argv[1], sys.argv[2], batch_size=3, progress=Telling())
print(run.status, flush=True)
"""
STUDY = """
base: {stopping: [{kind: max_tokens, max_tokens: 12}]}
dataset: {kind: shapes, num_samples: 12}
metrics: {right: {kind: exact}}
arms:
  greedy: {}
  warm: {sampling: [{kind: temperature, temperature: 2.0}]}
  affine: {cache: {kind: affine, bits: 8, group_size: 32}}
seeds: [0, 1, 2]
"""


def run_and_kill(path: Path, folder: Path, after: int, wait_s: float) -> tuple[bool, int]:
    """Start the run in a process of its own, and kill it some time after some more records.

    Returns:
        Whether it had come to its end, and how many records it had told of.
    """
    command = [sys.executable, "-c", SCRIPT, str(path), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        said = [process.stdout.readline() for _ in range(after)]
        time.sleep(wait_s)
        process.kill()
        said += process.stdout
        return "complete\n" in said, said.count("record\n")


@pytest.mark.parametrize(
    "num_kills", [3, pytest.param(50, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_random_moments(tmp_path: Path, num_kills: int) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    whole = run_experiment(path, tmp_path / "whole", batch_size=3)
    expected = outcome(whole.records())
    moments = random.Random(num_kills)
    grown = []
    for _ in range(num_kills):
        after = moments.randint(0, len(expected) // num_kills)
        ended, told = run_and_kill(path, folder, after, moments.uniform(0, 0.05))
        found = outcome(read_records(folder / RECORDS))
        assert len(found) >= (grown or [0])[-1] + told, "a record was lost that was flushed"
        grown.append(len(found))
        assert found.items() <= expected.items()
        if ended:
            break
    assert grown == sorted(grown), "a record was lost"
    assert any(0 < number < len(expected) for number in grown), "no kill fell into the run"
    run = run_experiment(path, folder, batch_size=3)
    assert run.status == "complete"
    assert outcome(run.records()) == expected

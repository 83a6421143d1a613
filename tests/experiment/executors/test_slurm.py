"""Slurm jobs by submitit: for real with its executor for this machine, which runs the same code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiment.executors.parties import NUM_UNITS, ROOT, STUDY, all_units, merged
from tests.experiment.studies import outcome, write_study
from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors import run_with
from vlmkit.experiment.executors.about import read_workers
from vlmkit.experiment.runner import run_experiment

submitit = pytest.importorskip("submitit", reason="submitit is not installed: vlmkit[slurm]")

# A process of its own: submitit leaves its jobs' processes to the end of the interpreter.
SCRIPT = """
import sys
from tests.experiment.executors.killing import Killing
from vlmkit.experiment.executors import run_with

folder = sys.argv[2]
run = run_with(
    "slurm", sys.argv[1], folder, num_workers=2, lease_s=1.0, batch_size=3,
    resources={"cluster": "local", "timeout_min": 10}, progress=Killing(folder, after=5),
)
print(run.status, run.num_done, run.num_errors)
"""


def test_two_jobs_of_which_one_is_killed_end_with_a_local_runs_records(tmp_path: Path) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    reply = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert reply.stdout == f"complete {NUM_UNITS} 0\n", reply.stderr
    assert merged(folder) == outcome(run_experiment(path, tmp_path / "local").records())
    assert set(all_units(folder).values()) == {1}, "a unit ran twice"
    assert len(list(read_workers(folder))) == 2
    assert len(list((folder / "workers" / "jobs").glob("*_log.err"))) == 2


def test_a_job_that_is_preempted_waits_for_its_turn_again() -> None:
    from vlmkit.experiment.executors.on_slurm import Job

    job = Job("run", {"lease_s": 1.0})
    assert job.checkpoint().function is job


MISTAKES = {
    "no such parameter": ({"cluster": "local", "gpus": 1}, r"submitit refuses the jobs: .*gpus"),
    "no such cluster": ({"cluster": "lokal"}, "submitit refuses the jobs: .*lokal"),
    "no Slurm here": ({}, "no sbatch on this machine; .*--resource cluster=local"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_cannot_be_submitted_is_refused_before_anything_is_written(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources, message = MISTAKES[case]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VlmkitError, match=message) as caught:
        run_with("slurm", write_study(tmp_path), tmp_path / "run", resources=resources)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

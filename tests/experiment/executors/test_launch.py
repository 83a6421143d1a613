"""``vlmkit run --executor worker``: processes that are started, watched and stopped together."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiment.executors.killing import Killing
from tests.experiment.executors.parties import (
    NUM_UNITS,
    ROOT,
    STUDY,
    all_units,
    merged,
    prepared,
    wait_for,
)
from tests.experiment.studies import outcome, write_study
from tests.experiment.test_runner import PICTURES, pictures
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.experiment.executors import run_with
from vlmkit.experiment.executors.about import read_workers
from vlmkit.experiment.executors.fleet import run_worker
from vlmkit.experiment.runner import run_experiment


def test_two_processes_of_which_one_is_killed_end_with_a_local_runs_records(
    tmp_path: Path,
) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    progress = Killing(folder, after=5)
    with pytest.warns(VlmkitWarning, match=r"1 of 2 workers ended early, .*ended by SIGKILL"):
        run = run_with("worker", path, folder, lease_s=1.0, batch_size=3, progress=progress)
    assert progress.killed is not None
    assert (run.status, run.num_done, run.num_errors) == ("complete", NUM_UNITS, 0)
    assert len(progress.told) == len(set(progress.told)) == NUM_UNITS
    assert merged(folder) == outcome(run_experiment(path, tmp_path / "local").records())
    assert set(all_units(folder).values()) == {1}, "a unit ran twice"


def test_ctrl_c_ends_all_workers_and_the_same_command_goes_on(tmp_path: Path) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    argv = [sys.executable, "-m", "vlmkit", "run", str(path), "dataset.num_samples=200"]
    with subprocess.Popen(
        [*argv, "--out", str(folder), "--batch-size", "2", "--executor", "worker"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        files = folder / "workers"
        wait_for(lambda: any(one.stat().st_size for one in files.glob("*.jsonl")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "of 1,800 units are done" in out
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert not (folder / "workers" / "stop").exists()
    assert not list((folder / "workers").glob("*.beat"))
    assert {about["status"] for about in read_workers(folder)} <= {"interrupted", "failed"}


def test_what_fails_is_a_record_or_stops_all(tmp_path: Path) -> None:
    path = pictures(tmp_path, ["good", "half", "good"])
    assert "half" not in PICTURES
    run = run_with("worker", path, tmp_path / "run", lease_s=2.0)
    assert (run.status, run.num_done, run.num_errors) == ("complete", 6, 4)
    message = r"fast: all workers have ended with \d of 6 units done: .*sample '.*', arm '.*'"
    with pytest.raises(VlmkitError, match=message):
        run_with("worker", path, tmp_path / "fast", fail_fast=True, lease_s=2.0)


def test_a_function_for_schedulers_runs_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(tmp_path, STUDY.replace("num_samples: 8", "num_samples: 1"))
    monkeypatch.chdir(ROOT)
    assert run_worker(str(folder), {"lease_s": 5.0, "share": True}, str(tmp_path)) == "complete"
    assert Path.cwd() == tmp_path
    assert run_worker(str(folder), {}, str(tmp_path / "gone")) == "complete"
    assert Path.cwd() == tmp_path


def test_workers_that_all_die_are_an_error_that_says_why(tmp_path: Path) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    progress = Killing(folder, after=3)
    message = rf"run: all workers have ended with \d+ of {NUM_UNITS} units done: .*SIGKILL; see"
    with pytest.raises(VlmkitError, match=message):
        run_with("worker", path, folder, num_workers=1, batch_size=3, progress=progress)

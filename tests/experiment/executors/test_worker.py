"""Workers: together they do what one run does, whichever of them dies."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.experiment.executors.parties import (
    NUM_UNITS,
    STUDY,
    Outcome,
    a_worker,
    all_units,
    merged,
    prepared,
    records_of,
    wait_for,
)
from tests.experiment.studies import outcome, write_study
from vlmkit.experiment.executors import work
from vlmkit.experiment.executors.about import read_workers
from vlmkit.experiment.reopen import rescore
from vlmkit.experiment.runner import run_experiment


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What a local run of the study says."""
    folder = tmp_path_factory.mktemp("whole")
    return outcome(run_experiment(write_study(folder, STUDY), folder / "run").records())


def owners(folder: Path) -> list[list[str]]:
    """The owners of each share, first to last."""
    chains: dict[str, dict[int, str]] = {}
    for path in (folder / "claims").iterdir():
        chains.setdefault(path.stem, {})[int(path.suffix[1:])] = path.read_text()
    return [[chain[number] for number in sorted(chain)] for chain in chains.values()]


def test_one_worker_does_what_a_local_run_does(tmp_path: Path, whole: Outcome) -> None:
    folder = prepared(tmp_path)
    run = work(folder, batch_size=5)
    assert (run.status, run.num_done, run.num_errors) == ("complete", NUM_UNITS, 0)
    assert merged(folder) == whole
    (about,) = read_workers(folder)
    assert about["status"] == "complete"
    assert about.keys() >= {"host", "pid", "device", "system", "versions", "began", "ended"}
    assert not list((folder / "workers").glob("*.beat"))
    assert all_units(folder) == dict.fromkeys(whole, 1)
    cut_off(folder, 40)
    assert work(folder).status == "complete"
    assert merged(folder) == whole
    (first, *_) = (folder / "workers").glob("*.jsonl")
    first.with_name("zz-again.jsonl").write_bytes(first.read_bytes())  # as after expired leases
    assert merged(folder) == whole
    assert rescore(folder) == NUM_UNITS
    assert not list((folder / "workers").glob("*.jsonl"))
    assert merged(folder) == whole


def cut_off(folder: Path, num_lines: int) -> None:
    """What a killed worker leaves: a last line without its end."""
    (records,) = (folder / "workers").glob("*.jsonl")
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:num_lines]) + lines[num_lines][:50])


def test_a_killed_workers_units_run_again_after_its_lease(tmp_path: Path, whole: Outcome) -> None:
    folder = prepared(tmp_path)
    with a_worker(folder, "--lease", "2") as killed, a_worker(folder, "--lease", "2") as other:
        wait_for(lambda: records_of(folder, killed.pid) >= 1, killed)
        killed.send_signal(signal.SIGSTOP)  # so that it holds something when it is killed
        wait_for(lambda: records_of(folder, other.pid) >= 1, other)
        killed.kill()
        killed.wait()
        done_before = records_of(folder, killed.pid)
        text, _ = other.communicate()
    assert other.returncode == 0, text
    assert f"{folder}: {NUM_UNITS} of {NUM_UNITS} units are done" in text
    assert merged(folder) == whole
    assert records_of(folder, other.pid) == NUM_UNITS - done_before
    assert all_units(folder) == dict.fromkeys(whole, 1), "a unit ran twice"
    names = {about["pid"]: about["name"] for about in read_workers(folder)}
    heirs = [chain for chain in owners(folder) if len(chain) > 1]
    assert heirs, "it held nothing when it was killed"
    assert heirs == [[names[killed.pid], names[other.pid]]] * len(heirs)


def test_one_that_was_held_for_dead_and_lives_does_no_harm(tmp_path: Path, whole: Outcome) -> None:
    folder = prepared(tmp_path)
    with a_worker(folder, "--lease", "1") as paused:
        wait_for(lambda: records_of(folder, paused.pid) >= 2, paused)
        paused.send_signal(signal.SIGSTOP)
        run = work(folder, lease_s=1, batch_size=3)
        assert run.status == "complete"
        paused.send_signal(signal.SIGCONT)
        text, _ = paused.communicate()
    assert paused.returncode == 0, text
    assert merged(folder) == whole
    assert any(len(chain) > 1 for chain in owners(folder))


def test_workers_that_are_asked_to_end_give_their_shares_back(
    tmp_path: Path, whole: Outcome
) -> None:
    folder = prepared(tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM):
        with a_worker(folder, "--lease", "1000") as worker:
            wait_for(lambda: records_of(folder, worker.pid) >= 1, worker)
            worker.send_signal(number)
            text, _ = worker.communicate()
        assert worker.returncode == 130, text
        assert "the same command goes on from here" in text
        assert "Traceback" not in text
    assert any(chain[-1] == "nobody" for chain in owners(folder))
    began = time.monotonic()
    assert work(folder, lease_s=1000).status == "complete"
    assert time.monotonic() - began < 500, "it waited for a lease"
    assert merged(folder) == whole
    assert all_units(folder) == dict.fromkeys(whole, 1)


def test_workers_go_on_with_a_local_run_and_the_other_way_round(
    tmp_path: Path, whole: Outcome
) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    local = run_experiment(path, folder, overrides=["limits.tokens=100"], batch_size=3)
    assert local.status == "limits.tokens"
    stopped = work(folder)
    assert (stopped.status, stopped.num_done) == ("limits.tokens", local.num_done)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tokens": 100', '"tokens": 500'))
    more = work(folder, batch_size=3)
    assert more.status == "limits.tokens"
    assert local.num_done < more.num_done < NUM_UNITS
    assert run_experiment(path, folder).status == "complete"
    assert merged(folder) == whole
    assert all_units(folder) == dict.fromkeys(whole, 1)


@pytest.mark.slow
def test_many_workers_killed_at_random_moments(tmp_path: Path, whole: Outcome) -> None:
    folder, moments = prepared(tmp_path), random.Random(5)
    grown = [0]
    for _ in range(8):
        with a_worker(folder, "--lease", "0.5") as one, a_worker(folder, "--lease", "0.5") as other:
            wait_for(lambda: len(merged(folder)) > grown[-1], one)
            time.sleep(moments.uniform(0, 0.1))
            one.kill()
            other.kill()
        found = merged(folder)
        assert found.items() <= whole.items()
        grown.append(len(found))
        if len(found) == NUM_UNITS:
            break
    assert grown == sorted(grown), "a record was lost"
    assert 0 < grown[1] < NUM_UNITS, "no kill fell into the run"
    assert work(folder, lease_s=0.5).status == "complete"
    assert merged(folder) == whole

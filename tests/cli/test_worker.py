"""``vlmkit worker``, and ``vlmkit run`` by workers."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.cli.reply import ROOT, Command
from tests.experiment.studies import write_study
from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors import run_with, work
from vlmkit.experiment.executors.worker import join_run
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.store import claim


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture
def run(study: Path) -> Path:
    """A run directory of which nothing is done."""
    run_with("worker", study, study.parent / "run", num_workers=0)
    return study.parent / "run"


def test_a_directory_is_made_worked_on_and_compared(command: Command, study: Path) -> None:
    folder = study.parent / "run"
    words = ["run", str(study), "--out", str(folder), "--executor", "worker"]
    only = command(*words, "--workers", "0")
    assert only.code == 0, only.stderr
    assert f"{folder}: 0 of 12 units are done" in only.stdout
    assert f"vlmkit worker {folder}" in only.stdout
    worker = command("worker", str(folder), "--batch-size", "2")
    assert worker.code == 0, worker.stderr
    assert f"{folder}: 12 of 12 units are done" in worker.stdout
    assert "12/12 units, " in worker.stderr
    again = command(*words)
    assert again.code == 0, again.stderr
    assert re.search(r"^ warm .*0 $", again.stdout, re.MULTILINE)


# name -> (the command line, the message); RUN is a run directory, STUDY an experiment
MISTAKES = {
    "no directory": (["worker", "nowhere"], "nowhere: no such folder; 'vlmkit run' makes one"),
    "not a run": (["worker", "configs"], "configs: no run directory"),
    "no lease": (["worker", "RUN", "--lease", "0"], "lease_s is 0.0; it must be 0.1 to 86400"),
    "a lease that is none": (["worker", "RUN", "--lease", "nan"], "lease_s is nan"),
    "no rows": (["worker", "RUN", "--batch-size", "0"], "batch_size is 0; it must be"),
    "an option of run": (["worker", "RUN", "--workers", "2"], "--workers is an option of"),
    "no executor": (["run", "STUDY", "--executor", "slrum"], "invalid choice: 'slrum'"),
    "workers here": (["run", "STUDY", "--workers", "2"], "--workers is of runs by workers; add"),
    "resource here": (["run", "STUDY", "--resource", "a=1"], "--resource is of runs by workers"),
    "lease here": (["run", "STUDY", "--lease", "3"], "--lease is of runs by workers"),
    "fewer than none": (
        ["run", "STUDY", "--executor", "worker", "--workers", "-1"],
        "num_workers is -1; it must be 0 to 10000",
    ),
    "rows of workers": (
        ["run", "STUDY", "--executor", "worker", "--batch-size", "0"],
        "batch_size is 0; it must be",
    ),
    "lease of workers": (
        ["run", "STUDY", "--executor", "worker", "--lease", "1e9"],
        "lease_s is 1000000000.0; it must be 0.1 to 86400",
    ),
    "resource of processes": (
        ["run", "STUDY", "--executor", "worker", "--resource", "num_gpus=1"],
        "--resource num_gpus: processes of this machine share all of it",
    ),
    "resource that is none": (
        ["run", "STUDY", "--executor", "worker", "--resource", "num_gpus"],
        "--resource: 'num_gpus' is no KEY=VALUE such as num_gpus=1",
    ),
    "resource twice": (
        ["run", "STUDY", "--executor", "ray", "--resource", "a=1", "--resource", "a=2"],
        "--resource: a is given twice",
    ),
    "not a run directory": (
        ["run", "STUDY", "--executor", "worker", "--out", "configs"],
        "is no run directory",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(command: Command, run: Path, case: str) -> None:
    argv, message = MISTAKES[case]
    names = {"RUN": str(run), "STUDY": str(run.parent / "study.yaml")}
    before = sorted(ROOT.iterdir()), sorted((ROOT / "configs").iterdir()), sorted(run.rglob("*"))
    reply = command(*(names.get(word, word) for word in argv))
    assert reply.code == 2
    assert reply.stdout == ""
    (line,) = reply.stderr.splitlines()
    assert line.startswith("vlmkit: error: ")
    assert message in line
    after = sorted(ROOT.iterdir()), sorted((ROOT / "configs").iterdir()), sorted(run.rglob("*"))
    assert before == after


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_what_is_not_installed_is_named_with_its_extra(
    command: Command, study: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, {"slurm": "submitit"}.get(name, name), None)
    folder = study.parent / "run"
    reply = command("run", str(study), "--out", str(folder), "--executor", name)
    assert (reply.code, reply.stdout) == (2, "")
    assert f"pip install 'vlmkit[{name}]'" in reply.stderr
    assert not folder.exists()


def test_python_refuses_an_unknown_executor(study: Path) -> None:
    with pytest.raises(VlmkitError, match=r"executor: 'rai' is none; did you mean 'ray'\?"):
        run_with("rai", study, study.parent / "run")
    assert not (study.parent / "run").exists()


@pytest.mark.parametrize("name", ["config", "data", "code", "weights of shapes"])
def test_a_worker_of_other_weights_data_or_code_is_refused(run: Path, name: str) -> None:
    manifest = run / "manifest.json"
    lines = manifest.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if line.strip().startswith(f'"{name}": "'))
    lines[place] = re.sub(r': ".*"', ': "another"', lines[place])
    manifest.write_text("\n".join(lines))
    what = "reads another experiment from it" if name == "config" else f"another {name} than this"
    with pytest.raises(VlmkitError, match=what):
        work(run)
    assert not list((run / "workers").glob("*.jsonl"))


def test_a_local_run_and_workers_keep_out_of_each_others_way(run: Path) -> None:
    handle = claim(run)
    with pytest.raises(VlmkitError, match=r"another process \(pid \d+\) is writing to it"):
        work(run)
    os.close(handle)
    handles = [join_run(run), join_run(run)]
    with pytest.raises(VlmkitError, match=r"another process \('vlmkit worker'\) is writing"):
        run_experiment(run.parent / "study.yaml", run)
    for handle in handles:
        os.close(handle)
    assert work(run).status == "complete"

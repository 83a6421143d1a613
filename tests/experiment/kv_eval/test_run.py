"""Runs of kv-eval: records, resuming, killing, and what is refused in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vlmkit
from tests.experiment.studies import write_study
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.experiment.kv_eval.outcome import FORMATS, read_outcome
from vlmkit.experiment.kv_eval.planning import load_kv_eval
from vlmkit.experiment.kv_eval.records import LOCKSTEP, read_lockstep
from vlmkit.experiment.kv_eval.run import run_kv_eval
from vlmkit.experiment.plan import make_plan
from vlmkit.experiment.schema import kv_eval_schema_text

ROOT = Path(vlmkit.__file__).parent.parent
GOLDEN = ROOT / "configs" / "kv_eval.schema.json"
FILES = [
    path
    for path in sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("experiments/**/*.yaml")])
    if GOLDEN.name in path.read_text().partition("\n")[0]
]
STUDY = """
base:
  cache: {kind: affine, bits: 2, group_size: 32}
  stopping: [{kind: max_tokens, max_tokens: 5}, {kind: eos}]
dataset: {kind: shapes, num_samples: 5}
metrics: {right: {kind: exact}}
policies:
  four: {kind: affine, bits: 4, group_size: 32}
  window: {kind: rotating, max_size: 24}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run directory, which tests only read."""
    folder = tmp_path_factory.mktemp("kv")
    run = run_kv_eval(write_study(folder, STUDY), folder / "run", batch_size=2)
    assert (run.status, run.num_done, run.num_units) == ("complete", 30, 30)
    return folder / "run"


def test_there_is_a_record_of_each_policy_and_sample(whole: Path) -> None:
    records = list(read_lockstep(whole))
    assert len({record.unit for record in records}) == len(records) == 15
    for record in records:
        assert record.error is None
        assert len(record.kl) == len(record.agrees) == len(record.token_ids) > 0
        assert len(record.prompt_kl) == record.prompt_tokens - 1
        assert [end - start for start, end in record.images] == [16]
        is_dense, is_window = record.arm == "dense", record.arm == "window"
        assert record.layers == ([] if is_dense else [0, 1, 2, 3])
        assert (record.quantized_tokens > 0) == (record.arm == "four")
        assert (record.dropped_tokens > 0) == is_window
        assert (record.held_tokens == 24) == is_window
        assert max(record.kl) < (1e-9 if is_dense else 30)
    by_sample = {record.sample: record.token_ids for record in records}
    assert all(record.token_ids == by_sample[record.sample] for record in records)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_every_policy(whole: Path, form: str) -> None:
    text = FORMATS[form](read_outcome(whole))
    assert all(name in text for name in ("dense", "four", "window"))
    if form == "json":
        assert [row["policy"] for row in json.loads(text)["policies"]] == [
            "dense",
            "four",
            "window",
        ]


def test_a_run_that_is_killed_goes_on_to_the_same_records(whole: Path, tmp_path: Path) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    script = (
        "import os, signal, sys\n"
        "from vlmkit.experiment.kv_eval.run import run_kv_eval\n"
        "def tell(done, of): os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_kv_eval(sys.argv[1], sys.argv[2], batch_size=2, tell=tell)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(folder)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    lines = (folder / LOCKSTEP).read_bytes()
    assert lines.count(b"\n") == 6
    (folder / LOCKSTEP).write_bytes(lines[:-40])  # as if it died while it wrote
    run = run_kv_eval(path, folder)
    assert (run.status, run.num_done) == ("complete", 30)
    assert list(read_lockstep(folder)) == list(read_lockstep(whole))


def test_an_interrupted_run_says_so_and_goes_on(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = write_study(tmp_path, STUDY), tmp_path / "run"
    study = load_kv_eval(path)

    def tell(done: int, of: int) -> None:
        os.kill(os.getpid(), 2)

    run = run_kv_eval(study, folder, batch_size=2, tell=tell)
    assert (run.status, run.num_done) == ("interrupted", 21)
    assert main(["kv-eval", str(path), "--out", str(folder), "--format", "csv"]) == 0
    assert list(read_lockstep(folder)) == list(read_lockstep(whole))
    assert capsys.readouterr().out.count("\n") == 4


def test_answers_can_be_the_reference_and_layers_be_looked_at(tmp_path: Path) -> None:
    policies = "policies: {two: {kind: affine, bits: 2, group_size: 32}}\n"
    path = write_study(tmp_path, STUDY.partition("policies")[0] + policies)
    overrides = ["lockstep={reference: answer, sensitivity: true}", "dataset.num_samples=2"]
    run_kv_eval(path, tmp_path / "run", overrides=overrides)
    records = list(read_lockstep(tmp_path / "run"))
    assert [record.arm for record in records] == ["dense", "two"] * 2
    assert {len(record.layer_kl) for record in records} == {0, 4}
    _, two = read_outcome(tmp_path / "run").policies
    assert len(two.layer_kl) == 4
    assert len(two.side_kl) == 2
    assert all(value > 0 for value in [*two.layer_kl, *two.side_kl])


CASES = {
    "no policies": (STUDY.partition("policies")[0], [], r"policies: is required"),
    "unknown key": (STUDY + "polices: {}\n", [], r":10: polices: unknown key; did you mean"),
    "unknown setting": (
        STUDY.replace("bits: 4", "bitz: 4"),
        [],
        r":8: policies\.four\.bitz: unknown key; did you mean 'bits'",
    ),
    "a codec that does not fit": (
        STUDY.replace("bits: 4, group_size: 32", "bits: 4, group_size: 128"),
        [],
        r":8: cache\.group_size: 128 does not divide head_dim 32.*use group_size 32.*'four'",
    ),
    "unknown baseline": (
        STUDY + "baseline: fuor\n",
        [],
        r":10: baseline: 'fuor' is no policy; the policies are 'four', 'window'",
    ),
    "a baseline alone": (
        STUDY.partition("policies")[0] + "policies: {dense: {kind: dense}}\n",
        [],
        r":7: policies: 'dense' alone; give one to compare with it",
    ),
    "equal policies": (
        STUDY + "  again: {kind: rotating, max_size: 24}\n",
        [],
        r":10: arms 'window' and 'again' are the same pipeline",
    ),
    "a cache in an override": (
        STUDY,
        ["cache.bits=4"],
        r"cache\.bits=4: cache: comes from 'policies'; write policies\.NAME\.bits=",
    ),
    "eviction of nothing": (
        STUDY.replace("kind: rotating, max_size: 24", "kind: knorm, ratio: 1.0"),
        [],
        r":9: policies\.window: applies to nothing: it stores every token as computed",
    ),
    "a budget beyond the prompt": (
        STUDY.replace("kind: rotating, max_size: 24", "kind: knorm, budget: 4096"),
        [],
        r":9: policies\.window: applies to nothing: budget=4096 is never reached",
    ),
    "a policy that does nothing": (
        STUDY.replace("max_size: 24", "max_size: 4096"),
        [],
        r":9: policies\.window: applies to nothing: max_size=4096 is never reached, the longest "
        r"sequence has 4\d tokens; lower it",
    ),
    "unknown reference": (STUDY, ["lockstep.reference=answers"], r"lockstep\.reference: "),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    text, overrides, message = CASES[case]
    path = write_study(tmp_path, text)
    assert main(["kv-eval", str(path), *overrides, "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert re.match(rf"vlmkit: error: .*({message})", line), line


def test_other_policies_do_not_go_on_with_a_run(whole: Path) -> None:
    study = whole.parent / "study.yaml"
    for override in ("policies.four.bits=3", "lockstep.sensitivity=true"):
        with pytest.raises(VlmkitError, match="holds a run of another config; choose another"):
            run_kv_eval(study, whole, overrides=[override])


def test_other_runs_are_told_apart(tmp_path: Path) -> None:
    from vlmkit.experiment.runner import run_experiment

    text = "base: {}\ndataset: {kind: shapes, num_samples: 1}\n"
    run_experiment(write_study(tmp_path, text), tmp_path / "run")
    with pytest.raises(VlmkitError, match="no run of kv-eval; 'vlmkit compare"):
        read_outcome(tmp_path / "run")


def test_the_schema_file_is_current(
    update_golden: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if update_golden:
        GOLDEN.write_text(kv_eval_schema_text(), encoding="utf-8")
    current = GOLDEN.read_text(encoding="utf-8") == kv_eval_schema_text()
    assert current, "run: pytest --update-golden"
    assert main(["schema", "--kv-eval", "--out", str(tmp_path)]) == 0
    assert (tmp_path / GOLDEN.name).read_text() == kv_eval_schema_text()
    capsys.readouterr()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_can_be_planned(path: Path) -> None:
    assert make_plan(load_kv_eval(path)).num_units > 0
    assert path.read_text().splitlines()[1].startswith("#")


def test_there_is_a_file() -> None:
    assert FILES

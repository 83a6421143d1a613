"""``vlmkit plan``, ``run``, ``rescore`` and ``compare``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.reply import ROOT, Command
from tests.experiment.studies import outcome, write_study
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.store import RECORDS


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path)


def test_a_plan_says_what_would_run_and_writes_nothing(command: Command, study: Path) -> None:
    folder = study.parent / "run"
    reply = command("plan", str(study), "--out", str(folder))
    assert reply.code == 0, reply.stderr
    assert re.search(r"^  greedy +-$", reply.stdout, re.MULTILINE)
    assert re.search(r"^  warm +sampling: .*temperature=1\.5", reply.stdout, re.MULTILINE)
    assert "2 arms x 3 samples x 2 seeds = 12" in reply.stdout
    assert "1 prefill for each sample, decoded in one batch" in reply.stdout
    assert f"0 of 12 in {folder}" in reply.stdout
    assert "72 at most" in reply.stdout
    assert not folder.exists()


def test_a_plan_fits_the_terminal_and_counts_in_words(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a name that is longer than all the others are"
    text = f"""
    dataset: {{kind: shapes, num_samples: 1}}
    arms:
      greedy: {{}}
      {name}:
        sampling:
          - {{kind: temperature, temperature: 1.5}}
          - {{kind: top_p, p: 0.9}}
          - {{kind: min_p, p: 0.1}}
    """
    study = write_study(tmp_path, text)
    monkeypatch.setenv("COLUMNS", "60")
    reply = command("plan", str(study), "--out", "run")
    assert "units      2 arms x 1 sample x 1 seed = 2" in reply.stdout
    lines = reply.stdout.splitlines()
    place = lines.index(f"  {name}")
    assert lines[place + 1].startswith("          sampling: [temperature(temperature=1.5),")
    assert all(len(line) <= 60 for line in lines[place : place + 3])


def test_a_run_is_planned_run_gone_on_with_and_compared(command: Command, study: Path) -> None:
    folder = str(study.parent / "run")
    reply = command("run", str(study), "limits.samples=1", "--out", folder)
    assert reply.code == 0, reply.stderr
    assert f"{folder}: 4 of 4 units are done" in reply.stdout
    assert "right" in reply.stdout
    assert "4/4 units, " in reply.stderr
    planned = command("plan", str(study), "--out", folder)
    assert "4 of 12 in" in planned.stdout
    assert "by what is done so far" in planned.stdout
    assert command("run", str(study), "--out", folder, "--batch-size", "2").code == 0
    assert read_manifest(Path(folder)).command[:2] == ["vlmkit", "run"]
    assert len(outcome(read_records(Path(folder, RECORDS)))) == 12
    compared = command("compare", folder, "--format", "json", "--baseline", "warm")
    document = json.loads(compared.stdout)
    assert document["baseline"] == "warm"
    assert [arm["arm"] for arm in document["arms"]] == ["greedy", "warm"]
    assert [arm["records"] for arm in document["arms"]] == [6, 6]


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "latex"])
def test_a_comparison_goes_to_a_file(command: Command, study: Path, form: str) -> None:
    folder, file = str(study.parent / "run"), study.parent / "table"
    assert command("run", str(study), "--out", folder, "limits.samples=1").code == 0
    reply = command("compare", folder, "--format", form, "--out", str(file))
    assert (reply.code, reply.stdout) == (0, f"{file}\n")
    assert "warm" in file.read_text()


def test_a_report_is_one_file(command: Command, study: Path) -> None:
    folder, file = str(study.parent / "run"), study.parent / "page.html"
    assert command("run", str(study), "--out", folder, "limits.samples=2").code == 0
    reply = command("report", folder)
    assert (reply.code, reply.stdout) == (0, f"{folder}/report.html\n")
    text = Path(folder, "report.html").read_text()
    assert text.lower().startswith("<!doctype html>")
    assert "shapes-1" in text
    assert "shapes-2" not in text
    assert command("report", folder, "--out", str(file), "--samples", "1").code == 0
    assert len(file.read_text()) < len(text)


def test_one_sample_is_shown_and_nothing_kept(command: Command, study: Path) -> None:
    folder = study.parent / "run"
    before = sorted(study.parent.iterdir())
    reply = command(
        "run", str(study), "--sample", "shapes-1", "--arm", "warm", "--out", str(folder)
    )
    assert reply.code == 0, reply.stderr
    heads = re.findall(r"^(warm), seed (\d), 6 tokens  right [01]$", reply.stdout, re.MULTILINE)
    assert heads == [("warm", "0"), ("warm", "1")]
    head, *lines = reply.stdout.splitlines()
    assert head == "sample shapes-1"
    question = next(line for line in lines if line.startswith("question  "))[10:]
    assert any(re.fullmatch(r"image     in the data, [\d,]+ bytes", line) for line in lines)
    assert "answer    green ring" in lines
    place = lines.index("prompt of warm, images of 112 x 112 pixels")
    assert lines[place + 1].startswith("<|im_start|>")
    assert question in lines[place + 2]
    assert sum(line.startswith("right reads it as ") for line in lines) == 2
    assert sorted(study.parent.iterdir()) == before


def test_a_sample_shows_its_files_and_what_failed(command: Command, tmp_path: Path) -> None:
    Image.new("RGB", (56, 84), "red").save(tmp_path / "a.png")
    Image.new("RGB", (2000, 4)).save(tmp_path / "strip.png")
    rows = [
        {"id": "two", "question": "Which?", "images": ["a.png", "a.png"]},
        {"id": "strip", "question": "What?", "images": ["strip.png"]},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = """
    base: {stopping: [{kind: max_tokens, max_tokens: 2}]}
    dataset: {kind: jsonl, path: data.jsonl}
    arms: {plain: {}, asked: {prompt: "Look. {question}"}, same: {prefill: {step_size: 9}}}
    """
    study = write_study(tmp_path, text)
    reply = command("run", str(study), "--sample", "two")
    assert reply.code == 0, reply.stderr
    lines = reply.stdout.splitlines()
    assert lines[0] == f"sample two, {tmp_path / 'data.jsonl'}:1"
    assert lines.count(f"image     {tmp_path / 'a.png'}") == 2
    assert "prompt of plain, same, images of 56 x 84, 56 x 84 pixels" in lines
    assert "prompt of asked, images of 56 x 84, 56 x 84 pixels" in lines
    failed = command("run", str(study), "--sample", "strip", "--arm", "plain")
    assert failed.code == 0
    assert "prompt of" not in failed.stdout
    assert re.search(r"^plain, seed 0, 0 tokens\nerror: .*strip\.png", failed.stdout, re.MULTILINE)


def test_records_are_scored_again_by_other_metrics(command: Command, study: Path) -> None:
    folder = str(study.parent / "run")
    assert command("run", str(study), "--out", folder).code == 0
    before = outcome(read_records(Path(folder, RECORDS)))
    text = study.read_text().replace("right: {kind: exact}", "other: {kind: exact}")
    other = write_study(study.parent, text, name="other")
    refused = command("run", str(other), "--out", folder)
    assert refused.code == 2
    assert (
        f"was scored by other metrics; give 'vlmkit rescore {folder} EXPERIMENT'" in refused.stderr
    )
    reply = command("rescore", folder, str(other))
    assert reply.code == 0, reply.stderr
    assert f"{folder}: 12 records scored again" in reply.stdout
    after = {record.unit: record for record in read_records(Path(folder, RECORDS))}
    assert all(list(record.scores) == ["other"] for record in after.values())
    assert all(after[unit].token_ids == said[1] for unit, said in before.items())
    assert command("run", str(other), "--out", folder, "limits.samples=1").code == 0
    assert "12 records scored again" in command("rescore", folder).stdout


def test_ctrl_c_closes_the_run(study: Path) -> None:
    folder = study.parent / "run"
    argv = [sys.executable, "-m", "vlmkit", "run", str(study), "dataset.num_samples=400"]
    with subprocess.Popen(
        [*argv, "--out", str(folder), "--batch-size", "2"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not (folder / RECORDS).exists() or not (folder / RECORDS).stat().st_size:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert f"{folder}: " in out
    assert "of 1,600 units are done" in out
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert (folder / RECORDS).read_bytes().endswith(b"\n")


MISTAKES = {
    "no experiment": (["run"], "no experiment: give its YAML file"),
    "no plan": (["plan"], "no experiment: give its YAML file"),
    "arm alone": (["run", "STUDY", "--arm", "warm"], "--arm needs --sample"),
    "unknown sample": (["run", "STUDY", "--sample", "x"], "no sample 'x'; the ids are shapes-0"),
    "unknown arm": (
        ["run", "STUDY", "--sample", "shapes-0", "--arm", "warn"],
        "no arm 'warn'; did you mean 'warm'?",
    ),
    "batch size": (["run", "STUDY", "--batch-size", "0"], "batch_size is 0"),
    "no run": (["compare", "nowhere"], "nowhere: no such folder; 'vlmkit run' makes one"),
    "no run directory": (["compare", "configs"], "configs: no run directory"),
    "no report": (["report", "configs"], "configs: no run directory"),
    "a report of nothing": (["report", "configs", "--samples", "0"], "--samples is 0"),
    "nothing to rescore": (["rescore", "configs"], "configs: no run directory"),
    "not a run directory": (["run", "STUDY", "--out", "configs"], "is no run directory"),
    "unknown option": (["run", "STUDY", "--force"], "unknown option --force"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(command: Command, study: Path, case: str) -> None:
    argv, message = MISTAKES[case]
    before = sorted(ROOT.iterdir()), sorted((ROOT / "configs").iterdir())
    reply = command(*(str(study) if word == "STUDY" else word for word in argv))
    assert reply.code == 2
    assert reply.stdout == ""
    (line,) = reply.stderr.splitlines()
    assert line.startswith("vlmkit: error: ")
    assert message in line
    assert before == (sorted(ROOT.iterdir()), sorted((ROOT / "configs").iterdir()))


def test_an_unknown_baseline_is_refused(command: Command, study: Path) -> None:
    folder = str(study.parent / "run")
    assert command("run", str(study), "--out", folder, "limits.samples=1").code == 0
    reply = command("compare", folder, "--baseline", "gredy")
    assert (reply.code, reply.stdout) == (2, "")
    assert "'gredy' is no arm" in reply.stderr

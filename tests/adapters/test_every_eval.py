"""A run as Every Eval Ever has it, checked by its own validator where that is installed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.reply import Command
from tests.experiment.studies import write_study
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS


@pytest.fixture
def run(tmp_path: Path, command: Command) -> Path:
    folder = tmp_path / "run"
    assert command("run", str(write_study(tmp_path)), "--out", str(folder)).code == 0
    return folder


def exported(command: Command, run: Path, out: Path) -> dict[str, tuple[Any, list[Any]]]:
    """By arm: the evaluation and its lines."""
    reply = command("export", str(run), "--format", "every-eval-ever", "--out", str(out))
    assert reply.code == 0, reply.stderr
    found = {}
    for name in reply.stdout.splitlines():
        document = json.loads(Path(name).read_text())
        lines = (out / document["detailed_evaluation_results"]["file_path"]).read_bytes()
        assert (
            hashlib.sha256(lines).hexdigest()
            == (document["detailed_evaluation_results"]["checksum"])
        )
        details = document["evaluation_results"][0]["generation_config"]["additional_details"]
        found[details["arm"]] = document, [json.loads(line) for line in lines.splitlines()]
    return found


def test_it_holds_what_the_records_say(command: Command, run: Path, tmp_path: Path) -> None:
    records = {record.unit: record for record in read_records(run / RECORDS)}
    manifest, found = read_manifest(run), exported(command, run, tmp_path / "out")
    assert set(found) == {"greedy", "warm"}
    for arm, (document, lines) in found.items():
        (result,) = document["evaluation_results"]
        assert document["model_info"]["id"] == "vlmkit/shapes"
        assert result["source_data"]["additional_details"]["hash"] == manifest.hashes["data"]
        pipeline = result["generation_config"]["additional_details"]["pipeline"]
        assert json.loads(pipeline) == manifest.arms[arm]
        assert len(lines) == document["detailed_evaluation_results"]["total_rows"] == 6
        for line in lines:
            record = records[arm, line["sample_id"], int(line["metadata"]["seed"])]
            assert line["output"]["raw"] == [record.text]
            assert line["evaluation"]["score"] == record.scores["right"].value
            assert line["evaluation_id"] == document["evaluation_id"]
            assert line["evaluation_result_id"] == result["evaluation_result_id"]
        scores = [line["evaluation"]["score"] for line in lines]
        assert result["score_details"]["score"] == pytest.approx(sum(scores) / len(scores))


def test_again_is_the_same_files(command: Command, run: Path, tmp_path: Path) -> None:
    first = exported(command, run, tmp_path / "out")
    assert exported(command, run, tmp_path / "out") == first
    assert len(list((tmp_path / "out").rglob("*.json*"))) == 4


def test_errors_and_what_has_no_score(command: Command, run: Path, tmp_path: Path) -> None:
    lines = (run / RECORDS).read_bytes().splitlines(keepends=True)
    one, two = (msgspec.json.decode(line, type=Record) for line in lines[:2])
    one.error, one.finish_reason, one.scores, two.scores = "NaN logits", "error", {}, {}
    changed = b"".join(msgspec.json.encode(record) + b"\n" for record in (one, two))
    (run / RECORDS).write_bytes(changed + b"".join(lines[2:]))
    found = [line for _, lines in exported(command, run, tmp_path).values() for line in lines]
    assert len(found) == 11
    (broken,) = [line for line in found if line["error"] is not None]
    assert (broken["error"], broken["evaluation"]["score"]) == ("NaN logits", 0.0)


@pytest.mark.skipif(
    find_spec("every_eval_ever") is None,
    reason="needs every-eval-ever, which needs Python 3.12",
)
def test_its_own_validator_takes_it(command: Command, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(command, run, out)
    files = [str(path.relative_to(out)) for path in out.rglob("*.json*")]
    validate = [sys.executable, "-m", "every_eval_ever", "validate", *files]
    done = subprocess.run(validate, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs", "--format", "every-eval-ever"], "configs: no run directory"),
        (["configs", "--format", "parquet"], "configs"),
        (["nowhere", "--format", "every-eval-ever"], "nowhere: no such folder"),
        (["nowhere", "--format", "xml"], "--format: invalid choice: 'xml'"),
    ],
)
def test_mistakes(command: Command, arguments: list[str], message: str) -> None:
    reply = command("export", *arguments)
    assert (reply.code, reply.stdout) == (2, "")
    assert message in reply.stderr
    assert reply.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written(command: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    reply = command("export", str(run), "--format", "every-eval-ever", "--out", out)
    assert reply.code == 2
    assert "cannot be written: Not a directory" in reply.stderr


def test_inspect_that_is_not_installed(
    command: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmkit.cli.export.find_spec", lambda name: None)
    reply = command("export", str(run), "--format", "inspect")
    assert reply.code == 2
    assert "inspect_ai is not installed; pip install 'vlmkit[inspect]'" in reply.stderr

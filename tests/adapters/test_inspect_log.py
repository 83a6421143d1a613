"""A run as inspect_ai's logs: inspect_ai reads them, and scores them as the run did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.reply import Command
from tests.experiment.studies import write_study

pytest.importorskip("inspect_ai", reason="needs inspect_ai: pip install 'vlmkit[inspect]'")

from inspect_ai import score as score_again
from inspect_ai.log import EvalLog, EvalSample, list_eval_logs, read_eval_log
from inspect_ai.scorer import exact

from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS

# inspect_ai calls tenacity in an older way, and leaves streams of its own to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]

STUDY = """
base:
  template: {enable_thinking: true}
  stopping: [{kind: max_tokens, max_tokens: 40}, {kind: eos}]
dataset: {kind: shapes, num_samples: 4, kinds: [count all, exists]}
metrics:
  right: {kind: exact}
arms:
  greedy: {}
  warm/1.5:
    sampling: [{kind: temperature, temperature: 1.5}]
seeds: [0, 7]
"""


@pytest.fixture
def run(tmp_path: Path, command: Command) -> Path:
    folder = tmp_path / "run"
    assert command("run", str(write_study(tmp_path, STUDY)), "--out", str(folder)).code == 0
    return folder


def logs(folder: Path) -> dict[str, EvalLog]:
    found = [read_eval_log(one, resolve_attachments=True) for one in list_eval_logs(str(folder))]
    return {(log.eval.metadata or {})["arm"]: log for log in found}


def test_logs_hold_what_the_records_say(run: Path, command: Command) -> None:
    reply = command("export", str(run), "--format", "inspect")
    assert reply.code == 0, reply.stderr
    assert len(reply.stdout.splitlines()) == 2
    records = {record.unit: record for record in read_records(run / RECORDS)}
    manifest, found = read_manifest(run), logs(run / "inspect")
    assert set(found) == {"greedy", "warm/1.5"}
    for arm, log in found.items():
        assert log.status == "success"
        assert log.eval.created == manifest.created
        assert log.eval.packages == manifest.versions
        assert (log.eval.metadata or {})["hashes"] == manifest.hashes
        assert log.samples is not None
        assert len(log.samples) == 8
        for sample in log.samples:
            seed = manifest.seeds[sample.epoch - 1]
            compare_sample(sample, records[arm, str(sample.id), seed])
        own = [one.scores["right"].value for unit, one in records.items() if unit[0] == arm]
        assert log.results is not None
        assert log.results.scores[0].metrics["mean"].value == sum(filter(None, own)) / 8


def compare_sample(sample: object, record: Record) -> None:
    assert isinstance(sample, EvalSample)
    assert sample.output.completion == record.text.rpartition("</think>")[2].strip()
    assert (sample.scores or {})["right"].value == record.scores["right"].value
    assert sample.metadata["seed"] == record.seed
    assert sample.output.usage is not None
    assert sample.output.usage.output_tokens == record.generation_tokens
    image, text = sample.input[0].content  # type: ignore[union-attr]
    assert image.image.startswith("data:image/png;base64,")  # type: ignore[union-attr]
    assert text.text  # type: ignore[union-attr]


def test_inspect_scores_them_as_the_run_did(run: Path, command: Command) -> None:
    assert command("export", str(run), "--format", "inspect", "--out", str(run / "logs")).code == 0
    log = logs(run / "logs")["warm/1.5"]
    again = score_again(log, exact(), display="none", action="append")
    for sample in again.samples or []:
        scores = sample.scores or {}
        assert (scores["exact"].value == "C") == (scores["right"].value == 1.0)


def test_an_unfinished_run_and_one_with_errors(run: Path, command: Command) -> None:
    import msgspec

    lines = (run / RECORDS).read_bytes().splitlines(keepends=True)[:-1]
    broken = msgspec.json.decode(lines[0], type=Record)
    broken.error, broken.finish_reason, broken.scores = "NaN logits", "error", {}
    (run / RECORDS).write_bytes(msgspec.json.encode(broken) + b"\n" + b"".join(lines[1:]))
    assert command("export", str(run), "--format", "inspect").code == 0
    found = logs(run / "inspect")
    assert sorted(log.status for log in found.values()) == ["cancelled", "success"]
    errors = [one.error for log in found.values() for one in log.samples or [] if one.error]
    assert [error.message for error in errors] == ["NaN logits"]

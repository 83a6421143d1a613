"""Traces on disk: what was written comes back, and what was cut off is reported."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trace.chains import header, small_trace
from vlmkit.errors import VlmkitError
from vlmkit.sampling import MinP, Temperature, TopK
from vlmkit.tracing import Trace, TraceEnd, most_cut_step, open_trace, read_trace, removed_share
from vlmkit.tracing.summary import shown_tokens, strictest_stage

CHAIN = (Temperature(temperature=1.5), TopK(k=6), MinP(p=0.2))


def write(path: Path, trace: Trace) -> Path:
    with open_trace(path) as append:
        for record in (trace.header, *trace.steps, trace.end):
            if record is not None:
                append(record)
    return path


@pytest.fixture
def trace() -> Trace:
    return small_trace(CHAIN)


def test_what_is_written_comes_back(trace: Trace, tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", trace)
    assert read_trace(path) == trace
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["record"] for line in lines] == ["header", "step", "step", "step", "end"]
    forced = lines[3]
    assert forced["stages"][-1]["token_logprob"] is None  # −inf is not JSON
    assert "NaN" not in path.read_text()


def test_each_record_is_on_disk_at_once(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with open_trace(path) as append:
        append(trace.header)
        assert read_trace(path).header == trace.header
        append(trace.steps[0])
        assert read_trace(path) == Trace(header=trace.header, steps=trace.steps[:1])


def test_an_interrupted_run_has_no_end(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    def interrupted() -> None:
        with open_trace(path) as append:
            append(trace.header)
            append(trace.steps[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    found = read_trace(path)
    assert (found.steps, found.end, found.damage) == (trace.steps[:1], None, None)


def test_a_cut_off_last_line_is_reported_and_the_rest_read(trace: Trace, tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", trace)
    whole = path.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))]
    for number in (2, 3, 4):
        for length in (1, 40, starts[number] - starts[number - 1] - 1):
            path.write_bytes(whole[: starts[number - 1] + length])
            found = read_trace(path)
            assert found.steps == trace.steps[: number - 2]
            assert found.end is None
            assert found.damage == (
                f"{path}:{number}: the last line was cut off after {length} bytes; "
                f"the {number - 2} steps before it are whole"
            )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a trace: the file is empty"),
        (b'{"record":"header","mod', "not a trace: its only line was cut off"),
        (b"hello\n", "not a trace: its first line is no header"),
        (b'{"record":"step"}\n', "not a trace: its first line is no header"),
        (b'{"record":"header","format":99}\n', "trace format 99; this version reads 1"),
        (b'{"record":"header","format":1}\n', ":1: not a trace record: .*missing required field"),
        (b"\xff\xfe\n\n", "not a trace: its first line is no header"),
    ],
)
def test_files_that_are_no_traces(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(VlmkitError, match=message):
        read_trace(path)


def test_damage_in_the_middle_names_its_line(trace: Trace, tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", trace)
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong, message in [
        ([*lines[:2], b"{]\n", *lines[3:]], "run.jsonl:3: not a trace record"),
        ([*lines[:2], *lines[3:]], "run.jsonl:3: step 1 is missing"),
        ([*lines, lines[0]], "run.jsonl:6: a trace holds one run"),
        ([*lines, *lines[1:]], "run.jsonl:6: a trace holds one run"),
        ([lines[0], lines[1].replace(b'"tracked":[', b'"tracked":[null,')], "run.jsonl:2: .*every"),
    ]:
        path.write_bytes(b"".join(wrong))
        with pytest.raises(VlmkitError, match=message):
            read_trace(path)


def test_places_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(VlmkitError, match=r"none\.jsonl: cannot be read: No such file"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(VlmkitError, match="cannot be read: Is a directory"):
        read_trace(tmp_path)
    with (
        pytest.raises(VlmkitError, match=r"run\.jsonl: cannot be written: No such file"),
        open_trace(tmp_path / "none" / "run.jsonl"),
    ):
        pass


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "run.jsonl").write_text("an older trace")
    monkeypatch.setattr(os, "write", full)
    with (
        pytest.raises(
            VlmkitError, match=f"run.jsonl: cannot be written: {os.strerror(errno.ENOSPC)}"
        ),
        open_trace(tmp_path / "run.jsonl") as append,
    ):
        append(header())
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
    assert (tmp_path / "run.jsonl").read_text() == "an older trace"


def test_which_step_lost_most(trace: Trace) -> None:
    shares = [removed_share(step) for step in trace.steps]
    assert most_cut_step(trace.steps) == shares.index(max(shares))
    assert most_cut_step([]) is None
    for step, share in zip(trace.steps, shares, strict=True):
        kept = 1.0
        for stage in step.stages:
            kept *= 1 - stage.removed_mass
        assert abs(share - (1 - kept)) < 1e-12
        masses = {stage.name: stage.removed_mass for stage in step.stages}
        assert strictest_stage(step) == max(masses, key=masses.__getitem__)
    untouched = small_trace([]).steps
    assert strictest_stage(untouched[0]) is None
    entropies = [step.stages[0].entropy_nats for step in untouched]
    assert most_cut_step(untouched) == entropies.index(max(entropies))


def test_which_tokens_are_shown(trace: Trace) -> None:
    step = trace.steps[-1]  # forced to the model's least likely token
    shown = [step.tokens[index] for index in shown_tokens(step, num_own=3)]
    assert [token.rank for token in shown[:3]] == [1, 2, 3]
    assert {step.token_id, step.sampled_id} <= {token.id for token in shown}
    assert shown == sorted(shown, key=lambda token: token.rank)
    assert len(shown_tokens(step, num_own=24)) == len(step.tokens)


def test_records_need_neither_mlx_nor_numpy() -> None:
    script = (
        "import sys, vlmkit.tracing, vlmkit.tracing.table, vlmkit.tracing.picture\n"
        "heavy = {'mlx', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    reply = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert reply.returncode == 0, reply.stderr


def test_an_end_may_match_text_or_a_token(tmp_path: Path) -> None:
    for matched in ("stop", 7, None):
        end = TraceEnd(text="é", matched_stop=matched)
        path = write(tmp_path / "run.jsonl", Trace(header=header(), end=end))
        assert read_trace(path).end == end

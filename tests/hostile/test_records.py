"""Traces, records and data sets of others: a result, or one line of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.limited import Call, run_limited
from vlmkit import VlmkitError
from vlmkit.experiment.data import JsonlConfig
from vlmkit.experiment.data.jsonl import jsonl
from vlmkit.experiment.reading import read_records
from vlmkit.tracing import read_trace

DEEP = "[" * 10**5 + "]" * 10**5
HEADER = {"record": "header", "model": "m", "prompt": "", "seed": 0, "top_n": 1, "version": "0"}
STAGE = {"name": "model", "entropy_nats": 0.0, "num_kept": 1, "top": [], "token_logprob": 0.0}
STEP = {"record": "step", "position": 0, "token_id": 1, "text": "", "forced": True, "sampled_id": 1}
TOKEN = {"id": 1, "text": "", "rank": 1}


def step(stage: dict[str, Any], token: dict[str, Any], **changes: Any) -> str:
    stages = [{**STAGE, "format": 1, "tracked": [0.0], **stage}]
    return json.dumps({**STEP, "stages": stages, "tokens": [{**TOKEN, **token}], **changes})


def test_a_sound_trace_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**HEADER, "format": 1}) + "\n" + step({}, {}) + "\n")
    assert len(read_trace(path).steps) == 1


TRACES = (
        step({"tracked": [1e308]}, {}), step({"token_logprob": 1e308}, {}),
        step({"entropy_nats": -1e9}, {}), step({"removed_mass": 2.0}, {}),
        step({}, {"removed_by": -1}), step({}, {"removed_by": 1}), step({}, {"rank": 0}),
        step({}, {"rank": 10**30}), step({}, {}, sampled_id=2), step({}, {}, token_id=-1),
        step({}, {}, stages=[]), step({}, {})[:-1] + f', "x": {DEEP}}}',
)  # fmt: skip


def test_traces(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(len(TRACES))]
    for path, line in zip(paths, TRACES, strict=True):
        path.write_text(json.dumps({**HEADER, "format": 1}) + "\n" + line + "\n")
    calls = [Call("vlmkit.tracing:read_trace", (str(path),)) for path in paths]
    for path, outcome in zip(paths, run_limited(calls, imports=["vlmkit.tracing"]), strict=True):
        assert (outcome.kind, outcome.is_lawful()) == ("error", True), outcome
        assert f"{path}:2" in outcome.text


def test_records(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"arm":"a","sample":"s","seed":0,"extra":{"a":' + DEEP + "}}\n")
    _refused(lambda: list(read_records(path)), "records.jsonl:1")


@pytest.mark.parametrize(
    "row",
    [
        json.dumps({"question": "?", **{f"c{n}": 1 for n in range(20_000)}}),
        '{"question": "?", "a": [' + "[]," * 10**6 + "[]]}",
        '{"question": ' + DEEP + "}",
        '{"question": 5}',
        '{"question": "?", "id": [1]}',
    ],
    ids=["columns", "lists", "deep", "number", "id"],
)
def test_data_sets(row: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(row + "\n")
    config = JsonlConfig(path="x.jsonl")
    _refused(lambda: jsonl(config, tmp_path).read(0), "x.jsonl:1")


def _refused(call: Any, place: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        call()
    assert place in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

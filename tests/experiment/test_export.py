"""Parquet holds every field of every record."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.experiment.made import drawn, record
from vlmkit.errors import VlmkitError
from vlmkit.experiment import export
from vlmkit.experiment.export import export_parquet
from vlmkit.experiment.records import Record, Scored


def test_rows_are_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(export, "_ROWS", 7)  # several batches
    full = record(
        "hot", "ü", 0.5, seed=2**64 - 1, token_ids=[1, 2], forced=[True, False], text_ends=[1, 2],
        logprobs=[-0.5, -1.0], top_logprobs=[[(1, -0.5)], []], extra={"a": [1]},
        finish_reason="stop", cached_tokens=3,
        scores={"exact": Scored(value=0.5, parsed="x", parts={"tp": 1.0})},
    )  # fmt: skip
    failed = record("hot", "s", None, error="NaN", scores={})
    records = [*drawn(10), full, failed]
    assert export_parquet(iter(records), ["exact"], tmp_path / "run.parquet") == 32
    table = pq.read_table(tmp_path / "run.parquet")
    fields = {name for name in Record.__struct_fields__ if name != "scores"}
    assert set(table.column_names) == fields | {"score.exact", "parsed.exact", "parts.exact"}
    rows = table.to_pylist()
    assert [row["arm"] for row in rows] == [item.arm for item in records]
    assert [row["score.exact"] for row in rows[:30]] == [
        item.scores["exact"].value for item in records[:30]
    ]
    assert rows[30] | {"text": ""} == {
        "arm": "hot", "sample": "ü", "seed": 2**64 - 1, "text": "", "token_ids": [1, 2],
        "forced": [True, False], "text_ends": [1, 2], "logprobs": [-0.5, -1.0],
        "top_logprobs": "[[[1,-0.5]],[]]", "finish_reason": "stop",
        "finish_kind": None, "error": None, "prompt_tokens": 0,
        "cached_tokens": 3, "generation_tokens": 0, "prompt_s": 0.0, "generation_s": 0.0,
        "extra": '{"a":[1]}', "score.exact": 0.5, "parsed.exact": "x",
        "parts.exact": '{"tp":1.0}',
    }  # fmt: skip
    assert (rows[31]["error"], rows[31]["score.exact"], rows[31]["extra"]) == ("NaN", None, None)


def test_no_records_are_an_empty_table(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert export_parquet([], [], tmp_path / "run.parquet") == 0
    assert pq.read_table(tmp_path / "run.parquet").num_rows == 0


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    def broken() -> object:
        yield from drawn(1)
        raise VlmkitError("records.jsonl:4: no record")

    (tmp_path / "run.parquet").write_text("before")
    with pytest.raises(VlmkitError, match="no record"):
        export_parquet(broken(), ["exact"], tmp_path / "run.parquet")
    with pytest.raises(VlmkitError, match=r"gone/run\.parquet: cannot be written: No such file"):
        export_parquet([], [], tmp_path / "gone" / "run.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["run.parquet"]
    assert (tmp_path / "run.parquet").read_text() == "before"


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(VlmkitError, match=r"needs pyarrow, .* pip install 'vlmkit\[data\]'"):
        export_parquet([], [], tmp_path / "run.parquet")
    assert not list(tmp_path.iterdir())

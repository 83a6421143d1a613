"""Records are read line by line; what differs between configs is said in few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.experiment.made import drawn, info
from vlmkit.errors import VlmkitError
from vlmkit.experiment import scoretable
from vlmkit.experiment.compare import compare
from vlmkit.experiment.differences import differences
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.experiment.runinfo import RunInfo, sample_info
from vlmkit.experiment.samples import Sample


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


def lines_of(num_samples: int) -> list[bytes]:
    return [msgspec.json.encode(item) + b"\n" for item in drawn(num_samples)]


def test_a_file_compares_as_its_records(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", *lines_of(12))
    assert list(read_records(path)) == list(drawn(12))
    assert compare([(info(), read_scores(path))]) == compare([(info(), drawn(12))])


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path, cut: int) -> None:
    lines = lines_of(2)
    path = write(tmp_path / "records.jsonl", *lines[:-1], lines[-1][:-cut])
    whole = 6 if cut == 1 else 5  # only the line's end is missing
    assert len(list(read_records(path))) == len(list(read_scores(path))) == whole


@pytest.mark.parametrize("bad", [b"{}\n", b"[1\n", b"\xff\n", b'{"arm": 3}\n', b"\n"])
def test_a_bad_line_is_named(tmp_path: Path, bad: bytes) -> None:
    path = write(tmp_path / "records.jsonl", *lines_of(1), bad, *lines_of(1))
    for read in (read_records, read_scores):
        with pytest.raises(VlmkitError, match=r"records\.jsonl:4: no record of a run: ") as caught:
            list(read(path))
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VlmkitError, match=r"records\.jsonl: No such file"):
        list(read_scores(tmp_path / "records.jsonl"))


def test_too_many_units_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoretable, "MAX_CELLS", 10)
    with pytest.raises(VlmkitError, match="3 arms × 12 samples × 1 seeds are 36 units; at most 10"):
        compare([(info(), drawn(12))])


@pytest.mark.parametrize(
    ("config", "reference", "found"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 1.0}, {"a": "1"}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a.c": "2"}),
        ({}, {"a": 1}, {"a": "–"}),
        ({"a": None}, {}, {"a": "null"}),
        ({"a": [1, 2]}, {"a": [1, 3]}, {"a": "[1, 2]"}),
        ({"a": [{"kind": "x", "v": 1}]}, {"a": [{"kind": "x", "v": 2}]}, {"a.0.v": "1"}),
        ({"a": [{"kind": "x", "v": 1}]}, {"a": [{"kind": "y", "v": 1}]}, {"a": "[x(v=1)]"}),
        ({"a": {"kind": "x"}}, {"a": {"kind": "y"}}, {"a": "x()"}),
        ({"a": {"kind": "x"}}, {"a": None}, {"a": "x()"}),
        ({"a": "ü\n"}, {"a": ""}, {"a": '"ü\\n"'}),
    ],
)
def test_differences(config: Any, reference: Any, found: dict[str, str]) -> None:
    assert differences(config, reference) == found


def test_a_runs_info_is_one_json_object() -> None:
    shown = sample_info(Sample("1", "Q", ("a.png", b"\x89PNG"), ("x",), {"n": 1, 2: {"y"}}))
    run = info(samples={"1": shown})
    assert msgspec.json.decode(msgspec.json.encode(run), type=RunInfo) == run
    assert shown.images[0] == "a.png"
    assert shown.fields == {"n": 1, "2": ["y"]}

"""Data sets, images in them and Parquet files that would fill the memory: a sample, or one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.limited import Call, run_limited

IMPORTS = ("vlmkit.experiment.data",)
LONG = "x" * 11_000_000
# name: its file, and what the error says; "" where there is none
FILES: dict[str, tuple[str, str]] = {
    "text.jsonl": (f'{{"question": "{LONG}"}}', "question: 11,000,000 characters"),
    "field.jsonl": (f'{{"question": "?", "a": ["{LONG}"]}}', "a: 11,000,000 characters"),
    "id.jsonl": (f'{{"question": "?", "id": "{"i" * 2000}"}}', "an id has at most 1,000 char"),
    "number.jsonl": (f'{{"question": "?", "id": {"9" * 5000}}}', "not valid JSON"),
    "base64.jsonl": ('{"question": "?", "image": "data:image/png;base64,@"}', "not valid base64"),
    "image.jsonl": ('{"question": "?", "image": "DATA:;base64,aGk="}', "is corrupt or in no known"),
    "comma.jsonl": ('{"question": "?", "image": "data:x"}', "needs a comma"),
    "text.tsv": (f"index\tquestion\n1\t{LONG}\n", "question: 11,000,000 characters"),
    "names.tsv": (
        "\t".join(["index", "question", *map(str, range(9_000)), "8999"]) + "\n1\t?\n",
        "two columns are called '8999'",
    ),
}


def load(name: str, folder: Path) -> Call:
    return Call("tests.hostile.test_data_sets:read_all", (name, str(folder)))


def read_all(name: str, folder: str) -> None:
    """Open a data set and read its samples."""
    from vlmkit.experiment.data import JsonlConfig, ParquetConfig, TsvConfig, load_samples

    kinds = {"jsonl": JsonlConfig, "tsv": TsvConfig, "parquet": ParquetConfig}
    for sample in load_samples(kinds[name.rpartition(".")[2]](path=name), Path(folder)):
        assert sample.question


def test_files(tmp_path: Path) -> None:
    for name, (content, _) in FILES.items():
        (tmp_path / name).write_text(content)
    outcomes = run_limited([load(name, tmp_path) for name in FILES], imports=IMPORTS)
    for (name, (_, said)), outcome in zip(FILES.items(), outcomes, strict=True):
        assert (outcome.kind, outcome.is_lawful()) == ("error", True), (name, outcome)
        assert said in outcome.text, name
        assert f"{name}:" in outcome.text, name


@pytest.mark.slow
def test_a_row_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "row.tsv").write_text('index\tquestion\n1\t"' + ("x" * 10**6 + "\n") * 140)
    (outcome,) = run_limited([load("row.tsv", tmp_path)], imports=IMPORTS, max_s=60)
    assert "row.tsv:136: ends a row of more than 128 MiB" in outcome.text


@pytest.mark.slow
def test_more_samples_than_there_are(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text('{"question":""}\n' * 2_000_001)
    (outcome,) = run_limited([load("many.jsonl", tmp_path)], imports=IMPORTS, max_s=60)
    assert "more than the 2,000,000 samples" in outcome.text


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    once = pa.array(["x" * 1_000_000])
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), once)
    tables = {
        "same.parquet": {"question": same.slice(0, 3), "id": ["a", "b", "c"]},
        "ids.parquet": {"question": ["?"] * 100_000, "id": same},
        "wide.parquet": {"question": ["?"], **{str(n): [n] for n in range(5_000)}},
        "wider.parquet": {"question": ["?"], **{str(n): [n] for n in range(11_000)}},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / name)
    found = run_limited([load(name, tmp_path) for name in tables], imports=IMPORTS)
    said = dict(zip(tables, found, strict=True))
    assert said["same.parquet"].kind == "result"
    assert said["wide.parquet"].kind == "result"
    assert "an id has at most 1,000 characters" in said["ids.parquet"].text
    assert "11,001 columns" in said["wider.parquet"].text


@pytest.mark.slow
def test_a_row_group_that_is_larger_than_its_file(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = dict.fromkeys(map(str, range(300)), pa.nulls(500_000, pa.int64()))
    table = pa.table({"question": ["?"] * 500_000, **columns})
    pq.write_table(table, tmp_path / "nulls.parquet")
    (outcome,) = run_limited([load("nulls.parquet", tmp_path)], imports=IMPORTS, max_s=60)
    assert "row group 0 takes 1.1 GiB" in outcome.text


def test_texts_that_stand_once_stay_so(tmp_path: Path) -> None:
    """A hundred thousand times the same megabyte is one megabyte."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    once = pa.array(["x" * 1_000_000])
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), once)
    pq.write_table(pa.table({"question": same}), tmp_path / "same.parquet")
    call = Call("tests.hostile.test_data_sets:read_one", (str(tmp_path),))
    (outcome,) = run_limited([call], imports=IMPORTS)
    assert outcome.kind == "result", outcome


def read_one(folder: str) -> None:
    """Read the last sample of a Parquet file."""
    from vlmkit.experiment.data import ParquetConfig
    from vlmkit.experiment.data.parquet import parquet

    rows = parquet(ParquetConfig(path="same.parquet"), Path(folder))
    assert len(rows.read(len(rows.ids) - 1).question) == 1_000_000

"""Parquet files and data sets of the hub, read without the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from tests.experiment.data.files import png
from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import DatasetConfig, Samples, data_hash, load_samples

CONFIG: TypeAdapter[Any] = TypeAdapter(DatasetConfig)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def load(base: Path, **config: Any) -> Samples:
    return load_samples(CONFIG.validate_python(config), base)


def write_parquet(path: Path, columns: dict[str, Any], rows_a_group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def columns(count: int, first: int = 0) -> dict[str, Any]:
    images = [{"bytes": png("red" if i % 2 else "blue"), "path": f"{i}.png"} for i in range(count)]
    return {
        "id": [f"q{first + i}" for i in range(count)],
        "question": [f"What is {first + i}?" for i in range(count)],
        "answers": [["a", str(i)] for i in range(count)],
        "image": pa.array(images, IMAGE),
        "options": [["x", "y"]] * count,
    }


def test_a_parquet_file_by_row_groups(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "d.parquet", columns(5))
    samples = load(tmp_path, kind="parquet", path="d.parquet")
    assert samples.ids == ("q0", "q1", "q2", "q3", "q4")
    assert [samples[i].question for i in (4, 0, 3)] == ["What is 4?", "What is 0?", "What is 3?"]
    assert samples[3].images == (png("red"),)
    assert samples[3].answers == ("a", "3")
    assert samples[3].fields == {"id": "q3", "options": ["x", "y"]}
    assert samples[4].where == f"{path}: row 5"
    texts = list(samples.texts())
    assert [text._replace(images=samples[i].images) for i, text in enumerate(texts)] == [*samples]
    assert {text.images for text in texts} == {()}


def test_the_parquet_files_of_a_folder_are_one_data_set(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d" / "b.parquet", columns(3, first=5))
    write_parquet(tmp_path / "d" / "a.parquet", columns(5))
    samples = load(tmp_path, kind="parquet", path="d")
    assert samples.ids == tuple(f"q{i}" for i in range(8))
    assert samples[7].question == "What is 7?"
    assert samples[7].where == f"{tmp_path / 'd' / 'b.parquet'}: row 3"


def test_images_may_be_in_several_columns_and_in_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    table = {
        "question": ["?", "?"],
        "image_1": ["a.png", "a.png"],
        "image_2": pa.array([png("green"), None], pa.binary()),
    }
    write_parquet(tmp_path / "d.parquet", table)
    keys = ["image_1", "image_2"]
    samples = load(tmp_path, kind="parquet", path="d.parquet", images_key=keys)
    assert samples[0].images == (str(tmp_path / "a.png"), png("green"))
    assert samples[1].images == (str(tmp_path / "a.png"),)
    assert samples.ids == ("1", "2")


@pytest.mark.usefixtures("offline")
def test_the_hub_gives_the_same_samples_and_label_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d.parquet", columns(5))
    built = datasets.Dataset.from_parquet(str(tmp_path / "d.parquet"))
    built = built.cast_column("image", datasets.Image())
    built = built.add_column("label", [0, 1, 0, 1, 1])
    built = built.cast_column("label", datasets.ClassLabel(names=["cat", "dog"]))
    (tmp_path / "repo").mkdir()
    built.to_parquet(str(tmp_path / "repo" / "test-00000-of-00001.parquet"))
    hub = {"kind": "hub", "dataset": "repo", "split": "test"}
    samples = load(tmp_path, **hub)
    plain = load(tmp_path, kind="parquet", path="d.parquet")
    assert samples.ids == plain.ids
    for one, other in zip(samples, plain, strict=True):
        assert one._replace(fields={}, where="") == other._replace(fields={}, where="")
    assert [sample.fields["label"] for sample in samples.texts()][:2] == ["cat", "dog"]
    assert samples[4].where == "repo (test): row 5"
    labelled = load(tmp_path, **hub, answers_key="label", limit=2, offset=1)
    assert [sample.answers for sample in labelled] == [("dog",), ("cat",)]
    some = load(tmp_path, **{**hub, "split": "test[:2]"})
    assert some.ids == ("q0", "q1")


def test_the_hash_does_not_depend_on_row_groups(tmp_path: Path) -> None:
    hashes = set()
    for size in (1, 2, 5):
        write_parquet(tmp_path / "d.parquet", columns(5), size)
        config = CONFIG.validate_python({"kind": "parquet", "path": "d.parquet"})
        hashes.add(data_hash(config, tmp_path))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("table", "config", "message"),
    [
        ({"question": ["?"]}, {"question_key": "questio"}, "no column 'questio'; did you mean"),
        ({"question": ["?"]}, {"id_key": "key"}, "no column 'key' (it has: question)"),
        ({"question": ["?"]}, {"answers_key": "gold"}, "row 1: no 'gold' in this row"),
        ({"question": pa.array([], pa.string())}, {}, "no samples in it"),
        ({"id": ["a", "b", "a"], "question": ["?"] * 3}, {}, "row 3: the id 'a' is taken already"),
        ({"question": ["?"], "image": [b"x"]}, {}, "row 1: the image is corrupt"),
        ({"question": ["?"], "image": ["x.png"]}, {}, "row 1: image "),
    ],
)
def test_mistakes_in_parquet_files(
    tmp_path: Path, table: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "d.parquet", table)
    with pytest.raises(VlmkitError) as caught:
        load(tmp_path, kind="parquet", path="d.parquet", **config)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_text("no")
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("d.parquet", "d.parquet: not a Parquet file ("),
        ("empty", "dataset.path: no .parquet files in "),
        ("e.parquet", "e.parquet does not exist; did you mean 'd.parquet'?"),
    ):
        with pytest.raises(VlmkitError) as caught:
            load(tmp_path, kind="parquet", path=path)
        assert message in str(caught.value)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dataset": "repo", "split": "train"}, "dataset: repo: can't be loaded: "),
        (
            {"dataset": "nobody/nothing", "split": "test"},
            "dataset: nobody/nothing: can't be",
        ),
        (
            {"dataset": "repo", "split": "test", "question_key": "q"},
            "repo (test): no column 'q'",
        ),
        ({"dataset": "repo", "split": "test", "id_key": "key"}, "repo (test): no column 'key'"),
    ],
)
def test_mistakes_on_the_hub(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    write_parquet(tmp_path / "repo" / "test.parquet", {"question": ["?"]})
    with pytest.raises(VlmkitError) as caught:
        load(tmp_path, kind="hub", **config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "module"), [("parquet", "pyarrow.parquet"), ("hub", "datasets")])
def test_a_missing_package_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str
) -> None:
    (tmp_path / "d").write_text("")
    where = {"path": "d"} if kind == "parquet" else {"dataset": "d", "split": "test"}
    monkeypatch.setitem(sys.modules, module, None)  # what a failed import looks like
    with pytest.raises(VlmkitError, match=rf"dataset: kind {kind} needs .*'vlmkit\[data\]'"):
        load(tmp_path, kind=kind, **where)

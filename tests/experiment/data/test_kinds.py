"""What each kind of data set reads, and that the file formats are the public ones."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import TypeAdapter

from tests.experiment.data.files import png, png64, write_jsonl, write_tsv
from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import DatasetConfig, Samples, data_hash, load_samples
from vlmkit.experiment.shapes import HELD_OUT_SEED, question_at
from vlmkit.experiment.shapes.drawing import render

CONFIG: TypeAdapter[Any] = TypeAdapter(DatasetConfig)


def load(base: Path, **config: Any) -> Samples:
    return load_samples(CONFIG.validate_python(config), base)


def test_jsonl_rows_are_found_again_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").write_bytes(png())
    rows = [
        {"id": "x", "question": "Ünïcode?", "image": "img/a.png", "answer": "yes", "level": 3},
        {"id": 7, "question": "Two?", "images": ["img/a.png", "img/a.png"], "answers": ["1", 2.5]},
        {"id": "z", "question": "None?", "image": None, "answer": True},
    ]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    path.write_text("\n" + path.read_text().replace("\n", "\n\n", 1))
    samples = load(tmp_path, kind="jsonl", path="d.jsonl")
    assert samples.ids == ("x", "7", "z")
    assert [samples[i].question for i in (2, 0, 1)] == ["None?", "Ünïcode?", "Two?"]
    assert samples[0].images == (str(tmp_path / "img" / "a.png"),)
    assert samples[0].fields == {"id": "x", "level": 3}
    assert [sample.answers for sample in samples] == [("yes",), ("1", "2.5"), ("true",)]
    assert len(samples[1].images) == 2
    assert samples[1].where == f"{path}:4"


def test_jsonl_keys_are_configurable_and_rows_are_numbered(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"q": "A?", "gt": "a", "file": [], "choices": ["x", "y"]}])
    samples = load(
        tmp_path,
        kind="jsonl",
        path="d.jsonl",
        question_key="q",
        answers_key="gt",
        images_key="file",
        prompt="{question}\n{choices}\n{gt}{ }",
    )
    assert samples.ids == ("1",)
    assert samples[0].question == "A?\nA. x\nB. y\na{ }"


@pytest.mark.parametrize(
    ("taking", "expected"),
    [
        ({}, "0123456789"),
        ({"limit": 3}, "012"),
        ({"limit": 30, "offset": 8}, "89"),
        ({"offset": 2, "limit": 2}, "23"),
    ],
)
def test_limit_and_offset(tmp_path: Path, taking: dict[str, int], expected: str) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"id": str(i), "question": "?"} for i in range(10)])
    samples = load(tmp_path, kind="jsonl", path="d.jsonl", **taking)
    assert "".join(samples.ids) == "".join(sample.id for sample in samples) == expected


def test_shuffling_is_seeded_and_comes_before_the_limit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"id": str(i), "question": "?"} for i in range(10)])
    orders = {
        seed: load(tmp_path, kind="jsonl", path="d.jsonl", shuffle_seed=seed).ids for seed in (0, 1)
    }
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [str(i) for i in range(10)]
    first = load(tmp_path, kind="jsonl", path="d.jsonl", shuffle_seed=1, limit=4)
    assert first.ids == orders[1][:4]


def test_tsv_reads_what_vlmevalkit_writes(tmp_path: Path) -> None:
    """Rows as in open-compass/VLMEvalKit, vlmeval/dataset/image_base.py."""
    blank = {"hint": "", "A": "", "B": "", "C": "", "image_path": ""}
    rows = [
        {"index": 1, "image": png64("red"), "question": "Which?", "answer": "B"}
        | blank
        | {"hint": 'A "hint"\twith\nlines', "A": "left", "B": "right"},
        {"index": 2, "image": 1, "question": "Again?", "answer": "['x', 'y']"} | blank,
        {"index": 3, "image": str([png64("blue"), png64("red")]), "question": "Two", "answer": 4}
        | blank,
        {"index": 4, "image": "", "question": "File?", "answer": ""} | blank | {"image_path": "a"},
    ]
    (tmp_path / "a").write_bytes(png("green"))
    path = write_tsv(tmp_path / "d.tsv", rows)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    samples = load(tmp_path, kind="tsv", path="d.tsv", md5=md5)
    assert samples.ids == ("1", "2", "3", "4")
    assert samples[0].question == (
        'Hint: A "hint"\twith\nlines\nQuestion: Which?\nOptions:\nA. left\nB. right\n'
        "Please select the correct answer from the options above. \n"
    )
    assert samples[1].question == "Again?"
    assert [sample.answers for sample in samples] == [("B",), ("x", "y"), ("4",), ()]
    assert samples[0].images == samples[1].images == (png("red"),)
    assert samples[2].images == (png("blue"), png("red"))
    assert samples[3].images == (str(tmp_path / "a"),)
    assert samples[0].fields["B"] == "right"
    assert samples[3].where == f"{path}:6"  # the first row has two lines
    assert [sample.images for sample in samples.texts()] == [()] * 4


def test_tsv_quotes_inside_cells_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    cells = ['a "b" c', '"a ""b"" c"', '"Yes" he said', 'a"', '"x\n\ty"', "'a'"]
    rows = "".join(f"{i}\t{cell}\n" for i, cell in enumerate(cells))
    path = tmp_path / "d.tsv"
    path.write_text("index\tquestion\n" + rows)
    theirs = pd.read_csv(path, sep="\t")["question"].tolist()
    assert [sample.question for sample in load(tmp_path, kind="tsv", path="d.tsv")] == theirs


def test_a_tsv_cell_may_be_larger_than_pythons_csv_reader_allows(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "n.png")
    large = base64.b64encode((tmp_path / "n.png").read_bytes()).decode()
    assert len(large) > 131_072
    write_tsv(tmp_path / "d.tsv", [{"index": 1, "image": large, "question": "?"}])
    (sample,) = load(tmp_path, kind="tsv", path="d.tsv")
    assert sample.images == ((tmp_path / "n.png").read_bytes(),)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("dog_2.png", "cat_1.PNG", "deep/bird_3.jpg"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(png())
    (tmp_path / "f" / "notes.txt").write_text("no image")
    config = {"kind": "images", "path": "f", "question": "What is it?"}
    samples = load(tmp_path, **config)
    assert samples.ids == ("cat_1.PNG", "dog_2.png")
    assert samples[0].images == (str(tmp_path / "f" / "cat_1.PNG"),)
    assert load(tmp_path, **config, recursive=True).ids[-1] == "dog_2.png"
    named = load(tmp_path, **config, recursive=True, answer_pattern=r"([a-z]+)_\d")
    assert {s.id: s.answers for s in named}["deep/bird_3.jpg"] == ("bird",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"cat_1.png": ["cat", "kitten"], "dog_2.png": "dog"})),
        ("a.csv", "file,answer\ncat_1.png,cat\ndog_2.png,dog\n"),
        ("a.tsv", "answer\tfile\ncat\tcat_1.png\ndog\tdog_2.png\n"),
    ],
)
def test_answers_beside_a_folder(tmp_path: Path, name: str, text: str) -> None:
    for image in ("cat_1.png", "dog_2.png", "eel_3.png"):
        (tmp_path / image).write_bytes(png())
    (tmp_path / name).write_text(text)
    samples = load(tmp_path, kind="images", path=".", question="What?", answers=name)
    answers = [sample.answers for sample in samples]
    assert answers[0][0] == "cat"
    assert answers[1:] == [("dog",), ()]


def test_shapes_are_drawn_from_the_stream_that_is_held_out() -> None:
    samples = load(Path(), kind="shapes", num_samples=3)
    drawn = question_at(HELD_OUT_SEED, 20_000_001)
    assert samples.ids == ("shapes-0", "shapes-1", "shapes-2")
    assert (samples[1].question, samples[1].answers) == (drawn.question, (drawn.answer,))
    pixels = np.asarray(Image.open(io.BytesIO(samples[1].images[0])))
    assert np.array_equal(pixels, render(drawn.scene))
    only = load(Path(), kind="shapes", num_samples=4, kinds=["sum", "read"])
    assert {sample.fields["category"] for sample in only.texts()} <= {"sum", "read"}
    assert len(only) == 4


def test_many_shapes_are_opened_without_drawing_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmkit.experiment.data.shapes.draw_png", lambda question: 1 / 0)
    config = CONFIG.validate_python({"kind": "shapes", "num_samples": 1000})
    samples = load_samples(config, Path())
    assert len(data_hash(config, Path(), samples)) == 64
    assert len([sample.question for sample in samples.texts()]) == 1000


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "?", "image": "a.png"}, {"id": "b", "question": "??"}]

    def hashed(name: str, rows: list[dict[str, Any]], colour: str, **taking: int) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.png").write_bytes(png(colour))
        write_jsonl(folder / "d.jsonl", rows)
        config = {"kind": "jsonl", "path": f"{name}/d.jsonl", **taking}
        return data_hash(CONFIG.validate_python(config), tmp_path)

    same = hashed("1", rows, "red")
    assert same == hashed("2", [{k: row[k] for k in reversed(row)} for row in rows], "red")
    others = [
        hashed("3", rows, "blue"),
        hashed("4", rows[::-1], "red"),
        hashed("5", [{**rows[0], "more": 1}, rows[1]], "red"),
        hashed("6", rows, "red", limit=1),
        hashed("7", [{**rows[0], "answer": "x"}, rows[1]], "red"),
    ]
    assert len({same, *others}) == 6


def test_a_file_that_changes_while_it_is_in_use_is_refused(tmp_path: Path) -> None:
    rows = [{"id": name, "question": "?"} for name in "ab"]
    write_jsonl(tmp_path / "d.jsonl", rows)
    write_tsv(tmp_path / "d.tsv", [{"index": name, "question": "?"} for name in "ab"])
    opened = [load(tmp_path, kind=kind, path=f"d.{kind}") for kind in ("jsonl", "tsv")]
    for path in tmp_path.iterdir():
        path.write_text(path.read_text().replace("b", "c"))
    for samples in opened:
        assert samples[0].id == "a"
        with pytest.raises(VlmkitError, match="changed while it is in use"):
            samples[1]

"""Mistakes in data sets: one line that names file, line and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.experiment.data.files import png, png64
from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import DatasetConfig, load_samples

CONFIG: TypeAdapter[Any] = TypeAdapter(DatasetConfig)
ROW = '{"id": "a", "question": "?"}\n'
JSONL = {"kind": "jsonl", "path": "d.jsonl"}
TSV = {"kind": "tsv", "path": "d.tsv"}
IMAGES = {"kind": "images", "path": "f", "question": "?"}

CASES: list[tuple[str, dict[str, Any], dict[str, str | bytes], str]] = [
    ("no file", JSONL, {"e.jsonl": ROW}, "d.jsonl does not exist; did you mean 'e.jsonl'?"),
    ("a folder", {**JSONL, "path": "."}, {}, "is a folder, a file is needed"),
    ("empty", JSONL, {"d.jsonl": "\n"}, "d.jsonl: no samples in it"),
    ("no JSON", JSONL, {"d.jsonl": ROW + "{'a'}"}, "d.jsonl:2: not valid JSON ("),
    ("cut UTF-8", JSONL, {"d.jsonl": b'{"question": "\xc3"}'}, "d.jsonl:1: not valid JSON ("),
    ("a list", JSONL, {"d.jsonl": "[1]"}, 'd.jsonl:1: must be a JSON object, as {"question": …}'),
    (
        "no question",
        JSONL,
        {"d.jsonl": '{"qestion": "?"}'},
        "d.jsonl:1: no 'question' in this row; did you mean 'qestion'? (it has: qestion)",
    ),
    ("number asked", JSONL, {"d.jsonl": '{"question": 3}'}, "d.jsonl:1: question: must be text"),
    ("bad id", JSONL, {"d.jsonl": '{"id": [], "question": ""}'}, "d.jsonl:1: id: an id is text"),
    (
        "an id twice",
        JSONL,
        {"d.jsonl": ROW + "\n" + ROW},
        "d.jsonl:3: the id 'a' is taken already, by ",
    ),
    ("no id", {**JSONL, "id_key": "key"}, {"d.jsonl": ROW}, "d.jsonl:1: no 'key' in this row"),
    (
        "no answers",
        {**JSONL, "answers_key": "label"},
        {"d.jsonl": ROW},
        "d.jsonl:1: no 'label' in this row",
    ),
    (
        "no such place",
        {**JSONL, "prompt": "{hint} {question}"},
        {"d.jsonl": ROW},
        "d.jsonl:1: prompt: no 'hint' in this row",
    ),
    (
        "image missing",
        JSONL,
        {"d.jsonl": ROW + '{"question": "?", "image": "b.png"}', "a.png": png()},
        "b.png does not exist; did you mean 'a.png'?",
    ),
    (
        "image corrupt",
        JSONL,
        {"d.jsonl": ROW + '{"question": "?", "image": "a.png"}', "a.png": b"PNG?"},
        "a.png is corrupt or in no known format",
    ),
    (
        "image a folder",
        JSONL,
        {"d.jsonl": '{"question": "?", "image": "."}'},
        "d.jsonl:1: image ",
    ),
    (
        "image a number",
        JSONL,
        {"d.jsonl": '{"question": "?", "image": 3}'},
        "d.jsonl:1: image: must be a path, a URL or a list of them, got 3",
    ),
    (
        "answer a mapping",
        JSONL,
        {"d.jsonl": '{"question": "?", "answer": {"a": 1}}'},
        "d.jsonl:1: answer: must be text, a number or a list of them, got {'a': 1}",
    ),
    ("all left out", {**JSONL, "offset": 5}, {"d.jsonl": ROW}, "offset 5 leaves none of its 1"),
    ("no column", TSV, {"d.tsv": "id\tquestion\n1\t?\n"}, "d.tsv:1: no column 'index'"),
    ("no rows", TSV, {"d.tsv": "index\tquestion\n"}, "d.tsv: no samples in it"),
    ("nothing", TSV, {"d.tsv": ""}, "d.tsv:1: no column 'index' (it has: none)"),
    ("a column twice", TSV, {"d.tsv": "index\tquestion\tA\tA\n"}, "two columns are called 'A'"),
    ("cells", TSV, {"d.tsv": "index\tquestion\n1\t?\n2\n"}, "d.tsv:3: 1 cells, the header names 2"),
    (
        "cut short",
        TSV,
        {"d.tsv": 'index\tquestion\n1\t"?\n'},
        "d.tsv:2: a cell opens with a quote",
    ),
    ("cut UTF-8", TSV, {"d.tsv": b"index\tquestion\n1\t\xc3\n"}, "d.tsv:2: not a TSV row ("),
    ("index empty", TSV, {"d.tsv": "index\tquestion\n\t?\n"}, "d.tsv:2: index: is empty"),
    ("question empty", TSV, {"d.tsv": "index\tquestion\n1\t\n"}, "d.tsv:2: question: is empty"),
    (
        "index twice",
        TSV,
        {"d.tsv": "index\tquestion\n1\t?\n1\t?\n"},
        "d.tsv:3: the id '1' is taken already",
    ),
    ("md5", {**TSV, "md5": "0" * 32}, {"d.tsv": "index\tquestion\n1\t?\n"}, "its md5 is "),
    (
        "reference to nothing",
        TSV,
        {"d.tsv": "index\timage\tquestion\n1\t9\t?\n"},
        "d.tsv:2: image: '9' is no row's index",
    ),
    (
        "reference to a reference",
        TSV,
        {"d.tsv": f"index\timage\tquestion\n1\t{png64()}\t?\n2\t1\t?\n3\t2\t?\n"},
        "d.tsv:4: image: '2' is a row without an image",
    ),
    (
        "no base64",
        TSV,
        {"d.tsv": f"index\timage\tquestion\n1\t{'*' * 80}\t?\n"},
        "d.tsv:2: image: not valid base64",
    ),
    (
        "no image",
        TSV,
        {"d.tsv": f"index\timage\tquestion\n1\t{'abcd' * 30}\t?\n"},
        "d.tsv:2: the image is corrupt or in no known format",
    ),
    ("no folder", IMAGES, {}, "f does not exist"),
    ("no images", IMAGES, {"f/a.txt": ""}, "f: no images in it (looked for .avif, "),
    ("a file", {**IMAGES, "path": "g"}, {"g": ""}, "is a file, a folder is needed"),
    ("a corrupt one", IMAGES, {"f/a.png": b"?"}, "a.png is corrupt or in no known format"),
    (
        "name without answer",
        {**IMAGES, "answer_pattern": "(.+)_[0-9]"},
        {"f/a.png": png()},
        "a.png: dataset.answer_pattern '(.+)_[0-9]' does not fit it",
    ),
    (
        "answer of no image",
        {**IMAGES, "answers": "a.csv"},
        {"f/a.png": png(), "a.csv": "file,answer\nb.png,x\n"},
        "a.csv:2: 'b.png' is no image of the folder; did you mean 'a.png'?",
    ),
    (
        "answers twice",
        {**IMAGES, "answers": "a.csv"},
        {"f/a.png": png(), "a.csv": "file,answer\na.png,x\na.png,y\n"},
        "a.csv:3: 'a.png' has an answer already",
    ),
    (
        "other columns",
        {**IMAGES, "answers": "a.csv"},
        {"f/a.png": png(), "a.csv": "name,answer\n"},
        "a.csv:1: needs the columns file and answer",
    ),
    (
        "answers no JSON",
        {**IMAGES, "answers": "a.json"},
        {"f/a.png": png(), "a.json": "[]"},
        "a.json: must be a JSON object {name: answer}",
    ),
    (
        "answers of a kind",
        {**IMAGES, "answers": "a.txt"},
        {"f/a.png": png(), "a.txt": ""},
        "must be a .json, .csv or .tsv file",
    ),
]


@pytest.mark.parametrize(
    ("config", "files", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_mistakes(
    tmp_path: Path, config: dict[str, Any], files: dict[str, str | bytes], message: str
) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(VlmkitError) as caught:
        load_samples(CONFIG.validate_python(config), tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "jsonl"}, "path"),
        ({"kind": "jsonl", "path": "d", "limit": 0}, "greater than or equal to 1"),
        ({"kind": "jsonl", "path": "d", "limit": True}, "needs a number"),
        ({"kind": "shapes", "num_samples": 0}, "greater than or equal to 1"),
        ({"kind": "shapes", "kinds": ["cain"]}, "did you mean 'chain'"),
        ({"kind": "tsv", "path": "d", "md5": "x"}, "pattern"),
        ({**IMAGES, "answer_pattern": "a"}, r"needs one group \(…\) around the answer"),
        ({**IMAGES, "answer_pattern": "("}, "is no regular expression"),
        ({"kind": "jsonl", "path": "d", "limitt": 1}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_in_configs(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CONFIG.validate_python(config)

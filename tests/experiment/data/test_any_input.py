"""Whatever stands in a file, a data set is read and scored, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import DatasetConfig, data_hash, load_samples
from vlmkit.experiment.scoring import ScorerConfig, check_samples, make_scorer

SCORERS = [
    make_scorer(TypeAdapter(ScorerConfig).validate_python(config))
    for config in (
        *({"kind": kind} for kind in ("exact", "normalised_exact", "contains", "pope", "mmmu")),
        *({"kind": kind} for kind in ("chartqa_relaxed", "ocrbench", "anls", "vqa_accuracy")),
        *({"kind": "multiple_choice", "parsing": p} for p in ("mmmu", "lmms_eval", "mmstar")),
        {"kind": "chair", "objects": {"dog": ["puppy"]}},
    )
]
KEYS = ("id", "question", "image", "answer", "options", "A", "B", "objects", "category")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), VALUES, max_size=6)
QUESTIONS = ROWS.map(lambda row: {"image": [], **row, "question": "?"})
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refusal(action: Callable[[], object]) -> str:
    """The message of a VlmkitError, nothing if there is none."""
    try:
        action()
    except VlmkitError as error:
        return str(error)
    return ""


def read_and_score(config: dict[str, Any], base: Path, text: str) -> None:
    dataset = TypeAdapter(DatasetConfig).validate_python(config)
    message = refusal(lambda: data_hash(dataset, base))
    assert message.isprintable()
    if message:
        return
    samples = load_samples(dataset, base)
    for scorer in SCORERS:
        message = refusal(lambda scorer=scorer: check_samples([scorer], samples.texts()))
        assert message.isprintable()
        if not message:
            summary = scorer.summarise([scorer.score(sample, text) for sample in samples])
            assert all(isinstance(value, float) for value in summary.values())


@ONE_FOLDER
@given(st.lists(QUESTIONS | ROWS | VALUES, max_size=3), st.text(max_size=20))
@example([{"\n": 1}], "")
def test_any_json_rows(tmp_path: Path, rows: list[Any], text: str) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "d.jsonl").write_text(lines)
    read_and_score({"kind": "jsonl", "path": "d.jsonl"}, tmp_path, text)


@ONE_FOLDER
@given(
    st.lists(st.text("ab\t\n\r\"'[]01=", max_size=12), max_size=5),
    st.sampled_from(["index\tquestion", "index\timage\tquestion\tanswer\tA\tB", ""]),
)
@example(['1\t"a\n'], "index\tquestion")
def test_any_tsv_rows(tmp_path: Path, rows: list[str], header: str) -> None:
    (tmp_path / "d.tsv").write_text("\n".join([header, *rows]), newline="")
    read_and_score({"kind": "tsv", "path": "d.tsv"}, tmp_path, "A")


@ONE_FOLDER
@given(st.binary(max_size=60))
@pytest.mark.parametrize("kind", ["jsonl", "tsv", "parquet"])
def test_any_bytes(tmp_path: Path, kind: str, content: bytes) -> None:
    (tmp_path / "d").write_bytes(content)
    read_and_score({"kind": kind, "path": "d"}, tmp_path, "")


@ONE_FOLDER
@given(st.binary(max_size=60), st.sampled_from(["a.json", "a.csv", "a.tsv"]))
def test_any_bytes_as_answers(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "f").mkdir(exist_ok=True)
    (tmp_path / "f" / "x.png").write_bytes(content)
    (tmp_path / name).write_bytes(content)
    config = {"kind": "images", "path": "f", "question": "?", "answers": name}
    read_and_score(config, tmp_path, "")

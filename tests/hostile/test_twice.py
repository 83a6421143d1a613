"""JSON of others in which a key stands twice: refused by its name, whichever file it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.effort import scaled
from tests.hostile.limited import is_one_line, message_of
from tests.processors.tiny import copy_shapes
from vlmkit.config.recommended import recommended_stages
from vlmkit.experiment.data import ImagesConfig, JsonlConfig
from vlmkit.experiment.data.folder import images
from vlmkit.experiment.data.jsonl import jsonl
from vlmkit.experiment.manifest import FILE, read_manifest
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.files import check_keys, parse_json
from vlmkit.loading import read_config
from vlmkit.processors import load_processor
from vlmkit.tracing import read_trace

TWICE = b'{"one": 1, "two": {"same": 1, "\\u0073ame": 2}}'
Reader = Callable[[Path], object]
CHECKPOINT: dict[str, Reader] = {
    "config.json": read_config,
    "generation_config.json": load_processor,
    "tokenizer_config.json": load_processor,
    "preprocessor_config.json": load_processor,
    "processor_config.json": load_processor,
    "special_tokens_map.json": load_processor,
    "chat_template.json": load_processor,
}


def read_answers(folder: Path) -> object:
    (folder / "a.png").touch()
    config = ImagesConfig(path=".", question="?", answers="answers.json")
    return images(config, folder)


OTHERS: dict[str, Reader] = {
    FILE: read_manifest,
    "records.jsonl": lambda folder: list(read_records(folder / "records.jsonl")),
    "scores.jsonl": lambda folder: list(read_scores(folder / "scores.jsonl")),
    "trace.jsonl": lambda folder: read_trace(folder / "trace.jsonl"),
    "rows.jsonl": lambda folder: jsonl(JsonlConfig(path="rows.jsonl"), folder),
    "answers.json": read_answers,
}
HEADER = {"record": "header", "format": 1, "model": "m", "prompt": "", "seed": 0, "top_n": 1}


@pytest.mark.parametrize("name", CHECKPOINT)
def test_of_a_checkpoint(name: str, tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "m")
    (folder / name).write_bytes(TWICE)
    told = message_of(lambda: CHECKPOINT[name](folder)) or ""
    assert str(folder / name) in told
    assert "the key 'same' stands twice" in told
    assert is_one_line(told)


@pytest.mark.parametrize("name", OTHERS)
def test_of_runs_and_data(name: str, tmp_path: Path) -> None:
    header = json.dumps({**HEADER, "version": "0"}).encode() + b"\n" if "trace" in name else b""
    (tmp_path / name).write_bytes(header + TWICE + b"\n")
    told = message_of(lambda: OTHERS[name](tmp_path)) or ""
    assert str(tmp_path / name) in told
    assert "the key 'same' stands twice" in told
    assert is_one_line(told)


def test_of_recommended_settings(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_bytes(TWICE)
    told = message_of(lambda: recommended_stages(tmp_path / "generation_config.json", search=False))
    assert "the key 'same' stands twice" in (told or "")


class Pairs(list[tuple[str, Any]]):
    """An object, as the pairs that are written."""


def write(value: Any) -> str:
    if isinstance(value, Pairs):
        inner = (f"{json.dumps(key)} :{write(item)}" for key, item in value)
        return "{" + ",\n".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value)


def is_twice(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [key for key, _ in value]
        return len(set(names)) < len(names) or any(is_twice(item) for _, item in value)
    return isinstance(value, list) and any(map(is_twice, value))


NAMES = st.text('a:"\\{é\n', max_size=2)
VALUES = st.recursive(
    st.integers(0, 9) | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(NAMES, inner), max_size=3).map(Pairs)
    ),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=scaled(200))
def test_both_readers_refuse_what_is_twice_and_nothing_else(value: Any) -> None:
    data = write(value).encode()
    for read in (check_keys, parse_json):
        if is_twice(value):
            with pytest.raises(ValueError, match="stands twice"):
                read(data)
        else:
            read(data)

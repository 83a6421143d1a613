"""Valid files with a few bytes or values exchanged: a result, or one line of error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.hostile.limited import is_one_line, message_of
from tests.hostile.test_checkpoints import SHAPES
from tests.hostile.test_records import HEADER, step
from vlmkit.experiment.data import JsonlConfig, TsvConfig
from vlmkit.experiment.data.jsonl import jsonl
from vlmkit.experiment.data.tsv import tsv
from vlmkit.experiment.export import export_parquet
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.loading import read_config
from vlmkit.loading.claims import check_claims
from vlmkit.loading.safetensors import read_header
from vlmkit.models.families import find_family
from vlmkit.processors import load_processor
from vlmkit.tracing import read_trace

VALUES = st.sampled_from(
    [
        *(None, True, False, 0, -1, 2**31, 2**63, 10**30, 1e308, -1e308, 1e-320, [], {}, [[]]),
        *("", "x", "a" * 300, "../..", "\0", "\ud800", "\x1b[2J", "/dev/zero", "~nobody", {"a": 1}),
    ]
)


class Change(NamedTuple):
    """What is exchanged: bytes, or one value of a line of JSON."""

    place: int
    value: Any
    is_byte: bool


CHANGES = st.lists(
    st.builds(Change, st.integers(0, 10**6), st.integers(0, 255), st.just(True))
    | st.builds(Change, st.integers(0, 10**6), VALUES, st.just(False)),
    min_size=1,
    max_size=3,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a document but the whole of it."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(content: bytes, changes: list[Change], *, is_lines: bool) -> bytes:
    """Exchange bytes and values, one after the other."""
    for change in changes:
        if change.is_byte:
            place = change.place % len(content)
            content = content[:place] + bytes([change.value]) + content[place + 1 :]
            continue
        parts = content.splitlines() if is_lines else [content]
        number = change.place % len(parts)
        try:
            document = json.loads(parts[number])
        except ValueError:
            continue  # a byte was exchanged before
        found = list(places(document))
        if not found:
            continue
        *outer, last = found[change.place % len(found)]
        holder = document
        for key in outer:
            holder = holder[key]
        holder[last] = change.value
        parts[number] = json.dumps(document).encode()
        content = b"\n".join(parts)
    return content


def trace(path: Path) -> None:
    read_trace(path)


def records(path: Path) -> None:
    list(read_scores(path))
    export_parquet(read_records(path), ["right"], path.with_suffix(".parquet"))


def manifest(path: Path) -> None:
    read_manifest(path.parent)


def config(path: Path) -> None:
    found = read_config(path.parent)
    check_claims(found, 1000)
    family = find_family(found)
    if family is not None:
        family.parse(found)


def preprocessor(path: Path) -> None:
    load_processor(path.parent)


def rows(path: Path) -> None:
    found = jsonl(JsonlConfig(path=path.name), path.parent)
    list(map(found.read, range(len(found.ids))))


def table(path: Path) -> None:
    found = tsv(TsvConfig(path=path.name), path.parent)
    list(map(found.read, range(len(found.ids))))


def header(path: Path) -> None:
    read_header(path)


RECORD = {
    "arm": "a", "sample": "s", "seed": 0, "text": "x", "token_ids": [1], "forced": [False],
    "text_ends": [1], "logprobs": [-0.5], "top_logprobs": [[[1, -0.5]]], "generation_tokens": 1,
    "scores": {"right": {"value": 1.0, "parsed": "x", "parts": {"n": 1.0}}}, "extra": {"a": [1]},
}  # fmt: skip
ROW = {"id": "a", "question": "?", "answers": ["x", 1], "A": "x", "B": "y", "choices": ["x"]}
KINDS: dict[str, tuple[str, Callable[[Path], None], list[Any] | Any]] = {
    "trace": ("t.jsonl", trace, [{**HEADER, "format": 1}, json.loads(step({}, {}))]),
    "records": ("records.jsonl", records, [RECORD, {**RECORD, "seed": 1}]),
    "rows": ("rows.jsonl", rows, [ROW, {**ROW, "id": 7}]),
    "config": ("config.json", config, None),
    "preprocessor": ("preprocessor_config.json", preprocessor, None),
    "special tokens": ("tokenizer_config.json", preprocessor, None),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "shapes"
    shutil.copytree(SHAPES, folder, ignore=shutil.ignore_patterns("samples", "*.safetensors"))
    return folder


@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=CHANGES)
@example(changes=[Change(0, 10**19, is_byte=False)])
def test_a_changed_file(model: Path, kind: str, changes: list[Change]) -> None:
    name, read, content = KINDS[kind]
    path = model / name
    whole = (
        (SHAPES / name).read_bytes()
        if content is None
        else b"".join(json.dumps(line).encode() + b"\n" for line in content)
    )
    path.write_bytes(changed(whole, changes, is_lines=content is not None))
    try:
        message = message_of(lambda: read(path))
    finally:
        path.write_bytes(whole)
    assert message is None or is_one_line(message)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_header(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    entry = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    text = json.dumps({"a": entry, "__metadata__": {"format": "mlx"}}).encode()
    content = bytearray(len(text).to_bytes(8, "little") + text + bytes(8))
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(content)
    message = message_of(lambda: header(path))
    assert message is None or is_one_line(message)


CELLS = st.sampled_from(
    ["index", "question", "A", "1", "", '"', "\t", "\t", "\n", "\r", "a\0", "[1"]
)


@given(st.lists(CELLS, max_size=20), st.binary(max_size=3))
def test_any_table(tmp_path_factory: pytest.TempPathFactory, cells: list[str], rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(("index\tquestion\tA\n" + "".join(cells)).encode() + rest)
    message = message_of(lambda: table(path))
    assert message is None or is_one_line(message)


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.booleans())
def test_any_bytes_as_a_trace_or_rows(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, is_later: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    first = json.dumps({**HEADER, "format": 1}).encode() + b"\n" if is_later else b""
    (folder / "any.jsonl").write_bytes(first + content)
    for read in (trace, rows):
        message = message_of(lambda read=read: read(folder / "any.jsonl"))  # type: ignore[misc]
        assert message is None or is_one_line(message)

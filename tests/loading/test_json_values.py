"""Any JSON value in any field of a checkpoint: it runs, or one line says what is wrong."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.effort import scaled
from tests.loading.json_values import FILES, VALUES, Field, fields, with_value
from tests.loading.qwen3_5 import make_config_of, write_checkpoint, write_qwen3_5
from tests.loading.test_text_part import CONFIGS, TEXT, write
from tests.loading.three_ways import complete
from vlmkit import generate, load
from vlmkit.errors import VlmkitError, VlmkitWarning

CHECKPOINTS = {
    "qwen2_vl": FILES,
    "qwen2_vl nested": ("config.json",),
    "qwen2_5_vl": ("config.json",),
    "qwen3_5": ("config.json",),
    "qwen3": ("config.json", "generation_config.json", "tokenizer_config.json"),
    "qwen3_vl_moe": ("config.json",),
    "pixtral": ("config.json", "preprocessor_config.json"),
}
CASES = [(name, file) for name, files in CHECKPOINTS.items() for file in files]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("json_values")
    return {
        "qwen2_vl": complete(base / "a"),
        "qwen2_vl nested": complete(base / "b", nested=True),
        "qwen2_5_vl": complete(base / "c", "qwen2_5_vl"),
        "qwen3_5": write_qwen3_5(base / "f"),
        "qwen3": write(base / "d", {**TEXT, "model_type": "qwen3"}),
        "qwen3_vl_moe": write_checkpoint(base / "g", make_config_of("qwen3_vl_moe")),
        "pixtral": write(base / "e", CONFIGS["nested"]),
    }


@contextlib.contextmanager
def changed(path: Path, field: Field, value: Any) -> Iterator[None]:
    original = path.read_text() if path.is_file() else None
    path.write_text(with_value(original, field, value))
    try:
        yield
    finally:
        if original is None:
            path.unlink()
        else:
            path.write_text(original)


def check(folder: Path, file: str, field: Field) -> None:
    """Load and generate; all that may fail is ours, and names the file and a key.

    A size that is possible but not the weights' is named by the weights that do not fit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VlmkitWarning)
            model, processor = load(str(folder))
    except VlmkitError as error:
        message = str(error)
        known = {key for path in folder.glob("*.json") for names in _fields(path) for key in names}
        assert file in message, message
        named = {*known, *field, "do not fit its config.json: "}
        assert any(name in message for name in named), message
        _check_line(message)
        return
    assert all(0 <= token < processor.num_embeddings for token in processor.eos_token_ids)
    image = Image.new("RGB", (16, 16))
    has_image = processor.image_token_id in (60, 631)
    try:
        generate(model, processor, "w1", max_tokens=1)
        if has_image:
            generate(model, processor, "w1 <|image_pad|>", image=image, max_tokens=1)
    except VlmkitError as error:
        _check_line(str(error))


def _fields(path: Path) -> list[Field]:
    return fields(path) if path.name in FILES else []


def _check_line(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 900
    message.encode()


@pytest.mark.parametrize(("name", "file"), CASES, ids=[f"{n}: {f}" for n, f in CASES])
@settings(max_examples=scaled(25))
@given(data=st.data())
def test_any_value(name: str, file: str, folders: dict[str, Path], data: st.DataObject) -> None:
    _check_any_value(folders[name], file, data)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), CASES, ids=[f"{n}: {f}" for n, f in CASES])
@settings(max_examples=scaled(1500))
@given(data=st.data())
def test_any_value_at_length(
    name: str, file: str, folders: dict[str, Path], data: st.DataObject
) -> None:
    _check_any_value(folders[name], file, data)


def _check_any_value(folder: Path, file: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(fields(folder / file)))
    with changed(folder / file, field, data.draw(VALUES)):
        check(folder, file, field)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "contents",
    [
        b"", b"{", b"[]", b"5", b"\xff\xfe{", b'{"a": NaN, "a": 1}x', b"[" * 100_000,
        b'{"x": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "list", "number", "bytes", "more", "deep", "digits"],
)  # fmt: skip
def test_what_is_no_json_object(file: str, contents: bytes, tmp_path: Path) -> None:
    folder = complete(tmp_path / "model")
    (folder / file).write_bytes(contents)
    with pytest.raises(VlmkitError) as caught:
        load(str(folder))
    assert str(folder / file) in str(caught.value)
    _check_line(str(caught.value))


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}'),
        ("chat_template.jinja", b"\xff\xfe\x00"),
    ],
)
def test_other_files_that_are_broken(name: str, contents: bytes, tmp_path: Path) -> None:
    folder = complete(tmp_path / "model")
    (folder / name).write_bytes(contents)
    with pytest.raises(VlmkitError) as caught:
        load(str(folder))
    assert str(folder / name) in str(caught.value)
    _check_line(str(caught.value))


def test_an_index_with_other_values(tmp_path: Path) -> None:
    folder = complete(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    for value in (None, 5, [], ["a.safetensors"], {"x": None}, {"x": [1]}, {"x": "\ud800"}):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))
        with pytest.raises(VlmkitError) as caught:
            load(str(folder))
        assert "model.safetensors.index.json" in str(caught.value), value
        _check_line(str(caught.value))

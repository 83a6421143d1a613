"""Broken checkpoints: every message is one line, names the thing, and says what would work."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.loading.checkpoints import make_config, random_weights, write_checkpoint
from vlmkit.errors import VlmkitError
from vlmkit.loading import load_model, read_checkpoint, resolve_checkpoint
from vlmkit.loading.install import flat_parameters
from vlmkit.loading.safetensors import read_header

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CONFIG = make_config()
WEIGHTS = random_weights(CONFIG)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", CONFIG, WEIGHTS)


def _message(folder: Path) -> str:
    with pytest.raises(VlmkitError) as caught:
        load_model(resolve_checkpoint(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON ("),
        ("\xff", "not valid JSON ("),
        ("[" * 100_000, "not valid JSON ("),
        ("[1]", "needs a JSON object, not list"),
        ("{}", "has no model_type"),
        ('{"model_type": 3}', "has no model_type"),
    ],
    ids=["cut", "bytes", "deep", "list", "empty", "number"],
)
def test_config(text: str, said: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    message = _message(folder)
    assert "config.json" in message
    assert said in message


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "no config.json in" in _message(folder)
    with pytest.raises(VlmkitError, match=r"no config\.json in"):
        load_model(folder)


def test_unknown_model_type(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "qwen2_vll"}))
    message = _message(folder)
    assert "'qwen2_vll'" in message
    assert "qwen2_5_vl" in message
    assert "the nearest that are: qwen2_vl, " in message


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_truncated(keep: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else int(keep)])
    message = _message(folder)
    assert "model.safetensors" in message
    assert "truncated" in message
    assert "fetch or write the file again" in message


def _header(entries: Any, data: bytes = b"") -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def _entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"\xff" * 100, "truncated"),
        (_header(b"garbage" * 10), "its header is no JSON"),
        (_header(b"\xff\xfe{}"), "its header is no JSON"),
        (_header([1]), "no JSON object"),
        (_header({"x": 1}), "the header entry of 'x'"),
        (_header(_entry(shape="2")), "the header entry of 'x'"),
        (_header(_entry(shape=[-2])), "the header entry of 'x'"),
        (_header(_entry(shape=[True])), "the header entry of 'x'"),
        (_header(_entry(data_offsets=[0])), "the header entry of 'x'"),
        (_header(_entry(), b"1234"), "'x' ends at byte 8 of 4"),
        (_header(_entry(shape=[3]), b"12345678"), "cannot fill bytes 0 to 8"),
        (_header(_entry(data_offsets=[8, 0]), b"12345678"), "cannot fill"),
        (_header(_entry(shape=[0, 2**40], data_offsets=[0, 0])), "cannot fill"),
        (_header(_entry(dtype="F8_E4M3")), "dtype F8_E4M3, which is not supported"),
        (_header({}), "holds no weights"),
    ],
)
def test_headers(contents: bytes, said: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(contents)
    message = _message(folder)
    assert "model.safetensors" in message
    assert said in message


def test_unreadable(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "no model.safetensors in" in _message(folder)


@pytest.mark.parametrize("index", [True, False], ids=["index", "names"])
@pytest.mark.parametrize("lost", SHARDS)
def test_missing_shard(lost: str, index: bool, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CONFIG, WEIGHTS, files=SHARDS, index=index)
    (folder / lost).unlink()
    message = _message(folder)
    assert f"shard {lost!r} of 2 is missing" in message
    assert "fetch the checkpoint again" in message


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("{", "not valid JSON"),
        ("{}", "needs a weight_map"),
        ('{"weight_map": {"x": 1}}', "needs a weight_map"),
        ('{"weight_map": {"x": "../x.safetensors"}}', "no safetensors file beside it"),
        ('{"weight_map": {"x": "x.bin"}}', "no safetensors file beside it"),
    ],
)
def test_bad_index(contents: str, said: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CONFIG, WEIGHTS, files=SHARDS)
    (folder / "model.safetensors.index.json").write_text(contents)
    message = _message(folder)
    assert "model.safetensors.index.json" in message
    assert said in message


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.gguf", "weights.npz", "adapter.safetensors"]
)
def test_other_formats(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    message = _message(folder)
    assert name in message
    assert "only safetensors weights are read" in message


def test_weight_in_two_shards(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CONFIG, WEIGHTS, files=SHARDS)
    (folder / SHARDS[1]).write_bytes((folder / SHARDS[0]).read_bytes())
    assert "is in another shard too" in _message(folder)


def _drop(weights: dict[str, Any]) -> None:
    del weights["model.layers.1.mlp.up_proj.weight"]


def _add(weights: dict[str, Any]) -> None:
    weights["model.layers.2.mlp.up_proj.weight"] = mx.zeros((2, 2))


def _widen(weights: dict[str, Any]) -> None:
    weights["model.norm.weight"] = mx.zeros((65,))


def _patches(weights: dict[str, Any]) -> None:
    weights["visual.patch_embed.proj.weight"] = mx.zeros((16, 5, 2, 4, 4))


def _integers(weights: dict[str, Any]) -> None:
    weights["model.norm.weight"] = mx.zeros((64,), dtype=mx.int8)


def _twice(weights: dict[str, Any]) -> None:
    weights["language_model.model.norm.weight"] = mx.zeros((64,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop, "1 missing (language.layers.1.mlp.up_proj.weight)"),
        (_add, "1 superfluous (model.layers.2.mlp.up_proj.weight)"),
        (_widen, "1 of the wrong shape (model.norm.weight [65] instead of [64])"),
        (_patches, "patch embedding has shape (16, 5, 2, 4, 4)"),
        (_integers, "1 not floating point (model.norm.weight int8)"),
        (_twice, "'model.norm.weight'"),
        (lambda weights: weights.clear() or _add(weights), "missing (language.embed_tokens"),
    ],
    ids=["missing", "extra", "shape", "patches", "integers", "twice", "all"],
)
def test_weights(change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path) -> None:
    weights: dict[str, Any] = dict(WEIGHTS)
    change(weights)
    assert said in _message(write_checkpoint(tmp_path, CONFIG, weights))


@settings(max_examples=scaled(60))
@given(data=st.data())
def test_damaged_files_raise_only_our_error(data: st.DataObject) -> None:
    original = _whole_file()
    cut = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original[:cut])
    for _ in range(data.draw(st.integers(0, 3)) if cut else 0):
        damaged[data.draw(st.integers(0, min(cut, 4000) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(VlmkitError) as caught:
            load_model(folder)
    assert "\n" not in str(caught.value)


@settings(max_examples=scaled(100))
@example([(5000, 255)])  # a weight
@example([(2, 255)])  # the header's length
@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_gives_weights_as_described_or_our_error(
    changes: list[tuple[int, int]],
) -> None:
    damaged = bytearray(_whole_file())
    for position, value in changes:
        damaged[position] = value
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "model.safetensors").write_bytes(damaged)
        shapes, message = None, str(folder)
        try:
            shapes = _shapes_of(load_model(folder))
        except VlmkitError as error:
            message = str(error)
    assert shapes in (None, _shapes_of(_load_whole()))
    assert str(folder) in message
    assert "\n" not in message


def _shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path, of arrays that were read to their end."""
    arrays = flat_parameters(model)
    mx.eval(list(arrays.values()))
    return {path: array.shape for path, array in arrays.items()}


@functools.cache
def _load_whole() -> Any:
    with tempfile.TemporaryDirectory() as temporary:
        model = load_model(write_checkpoint(Path(temporary), CONFIG, WEIGHTS))
        _shapes_of(model)
        return model


def _whole_file() -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        path = write_checkpoint(Path(temporary), CONFIG, WEIGHTS) / "model.safetensors"
        return path.read_bytes()


def test_header_of_a_good_file(folder: Path) -> None:
    header = read_header(folder / "model.safetensors")
    assert {name: info.shape for name, info in header.items()} == {
        name: array.shape for name, array in WEIGHTS.items()
    }
    assert read_checkpoint(folder).config == CONFIG

"""Checkpoints that claim what they do not hold: one line, at once, in little memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.limited import Call, run_limited
from vlmkit.errors import VlmkitError
from vlmkit.loading import read_config, resolve_checkpoint
from vlmkit.loading.safetensors import read_header

SHAPES = resolve_checkpoint("shapes")
MAX_S = 60.0  # a guard against hanging, also where the machine is busy
TENSOR = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def folder_with(path: Path, **files: bytes | None) -> Path:
    """The embedded checkpoint with some files replaced, or left out."""
    path.mkdir()
    for file in SHAPES.iterdir():
        if file.is_file() and file.name not in files:
            (path / file.name).symlink_to(file)
    for name, content in files.items():
        if content is not None:
            (path / name).write_bytes(content)
    return path


def config(**changes: Any) -> bytes:
    return json.dumps({**json.loads((SHAPES / "config.json").read_text()), **changes}).encode()


def vision(**changes: Any) -> bytes:
    whole = json.loads(config())
    return config(vision_config={**whole["vision_config"], **changes})


def header(raw: bytes) -> bytes:
    return len(raw).to_bytes(8, "little") + raw


def index(**shards: str) -> bytes:
    return json.dumps({"weight_map": shards}).encode()


CONFIGS: dict[str, tuple[bytes, str]] = {
    "layers": (config(num_hidden_layers=10**6), "num_hidden_layers is 1000000"),
    "depth": (vision(depth=10**6), "vision_config.depth is 1000000"),
    "pattern": (
        config(model_type="nemotron_h", vision_config=None, hybrid_override_pattern="M" * 10**6),
        "hybrid_override_pattern has 1000000 entries",
    ),
    "hidden": (config(hidden_size=2**30), "mrope_section"),
    "inner": (config(intermediate_size=2**30), "of the wrong shape"),
    "vocabulary": (config(vocab_size=2**31), "vocab_size is 2147483648"),
    "vocabulary below": (config(vocab_size=2**31 - 1), "a vocabulary of 2,147,483,647 ids"),
    "cache": (config(model_type="cache", vision_config=None), "'cache' is not supported"),
    "base": (config(model_type="base"), "'base' is not supported"),
    "dots": (config(model_type="../base"), "is not supported"),
    "long name": (config(model_type="x" * 10**6), "is not supported"),
    "quantization": (
        config(quantization={"bits": 4, "group_size": 64, **{f"w{i}": {} for i in range(10**5)}}),
        "quantization has 100002 entries",
    ),
    "layer types": (config(layer_types=5), "layer_types is 5"),
    "eos": (config(eos_token_id=[[1]]), "eos_token_id is [[1]]"),
    "eos beyond": (config(eos_token_id=10**9), "outside the vocabulary"),
    "image": (config(image_token_id=-1), "image_token_id is -1"),
    "image beyond": (config(image_token_id=10**6), "image_token_id 1000000 is outside"),
    "image is video": (config(image_token_id=632), "as video_token_id is"),
    "deep": (b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "not valid JSON"),
    "no UTF-8": (b'{"a": "\xff"}', "not valid JSON"),
}
MANY = {  # made when they are needed: they are large
    "tensors": lambda: header(b"{" + b",".join(TENSOR % i for i in range(300_000)) + b"}"),
    "lists": lambda: header(b'{"a":[' + b"[]," * 10**7 + b"[]]}"),
    "keys": lambda: header(b"{" + b'"x":0,' * (2 * 10**6) + b'"x":0}'),
}
WEIGHTS: dict[str, tuple[bytes, str]] = {
    "twice": (header(b'{"a":1,"a":2}'), "'a' stands twice"),
    "deep": (header(b'{"a":' + b"[" * 10**5), "no JSON"),
    "dimensions": (header(b'{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1]}}'), "entry of 'a'"),
}


def test_each_is_refused_in_one_line(tmp_path: Path) -> None:
    folders = [
        *(folder_with(tmp_path / f"c{n}", **{"config.json": content})
          for n, (content, _) in enumerate(CONFIGS.values())),
        *(folder_with(tmp_path / f"w{n}", **{"model.safetensors": content})
          for n, (content, _) in enumerate(WEIGHTS.values())),
        *(folder_with(tmp_path / f"m{n}", **{"model.safetensors": make()})
          for n, make in enumerate(MANY.values())),
    ]  # fmt: skip
    many = index(**{f"w{i}": f"{i}.safetensors" for i in range(20_000)})
    files = {"model.safetensors": None, "model.safetensors.index.json": many}
    folders.append(folder_with(tmp_path / "index", **files))
    promised = "model-00001-of-99999999999.safetensors"
    folders.append(folder_with(tmp_path / "p", **{"model.safetensors": None, promised: b""}))
    said = [text for _, text in [*CONFIGS.values(), *WEIGHTS.values()]]
    said += ["250,000"] * len(MANY)
    said += ["20000 weight files", "99999999997 more of 99999999999"]
    calls = [Call("vlmkit:load", (str(folder),)) for folder in folders]
    imports = ["vlmkit.loading.model", "vlmkit.processors.loading", "vlmkit.api"]
    outcomes = run_limited(calls, imports=imports, max_s=MAX_S)
    for outcome, text in zip(outcomes, said, strict=True):
        assert (outcome.kind, outcome.is_lawful()) == ("error", True), (text, outcome.text)
        assert text in outcome.text


PIECES = st.sampled_from(
    [b'{"model_type":', b'"x"', b"[", b"]", b"{", b"}", b",", b":", b"NaN", b"1e999", b"\xff", b"9"]
)
JSON_BYTES = st.binary(max_size=40) | st.lists(PIECES, max_size=12).map(b"".join)


def is_lawful(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file gives a result or one line of our error; anything else is raised."""
    try:
        return isinstance(read(path), dict)
    except VlmkitError as error:
        return len(str(error).splitlines()) == 1


@given(JSON_BYTES)
def test_any_bytes_as_config(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "config.json").write_bytes(content)
    assert is_lawful(read_config, folder)


@given(JSON_BYTES, st.integers(0, 3))
def test_any_bytes_as_header(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, extra: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    path.write_bytes(header(content) + bytes(extra))
    assert is_lawful(read_header, path)

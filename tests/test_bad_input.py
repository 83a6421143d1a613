"""Bad input from the command line: exit code 2 and one line: what, where, what works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from PIL import Image

import vlmkit
from vlmkit.cli.main import main

SHAPES = Path(vlmkit.__file__).parent / "assets" / "shapes"
FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
)


def checkpoint(folder: Path) -> Path:
    """A copy of the embedded model to break."""
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copy(SHAPES / name, folder / name)
    return folder


def edit_config(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def edit_weights(folder: Path, change: Callable[[dict[str, mx.array]], None]) -> Path:
    weights = dict(mx.load(str(folder / "model.safetensors")))
    change(weights)
    mx.save_safetensors(str(folder / "changed"), weights)
    (folder / "changed.safetensors").replace(folder / "model.safetensors")
    return folder


def truncate(folder: Path, share: float) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    return folder


def no_config(folder: Path) -> Path:
    (folder / "config.json").unlink()
    return folder


def without_thinking(folder: Path) -> Path:
    text = (folder / "tokenizer.json").read_text().replace("think>", "thonk>")
    (folder / "tokenizer.json").write_text(text)
    return folder


def rename(weights: dict[str, mx.array]) -> None:
    weights["model.norm.wait"] = weights.pop("model.norm.weight")


def add(weights: dict[str, mx.array]) -> None:
    weights["model.layers.99.mlp.up_proj.weight"] = mx.zeros((3, 3))


def reshape(weights: dict[str, mx.array]) -> None:
    weights["model.norm.weight"] = mx.zeros((7,))


BROKEN_CHECKPOINTS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "no config": (no_config, ("config.json",)),
    "unknown type": (lambda f: edit_config(f, model_type="qwen2_vlm"), ("qwen2_vlm", " qwen2_vl,")),
    "truncated": (lambda f: truncate(f, 0.5), ("model.safetensors",)),
    "truncated header": (lambda f: truncate(f, 0.0005), ("model.safetensors",)),
    "missing weight": (
        lambda f: edit_weights(f, rename),
        ("language.norm.weight", "model.norm.wait"),
    ),
    "extra weight": (lambda f: edit_weights(f, add), ("model.layers.99.mlp.up_proj.weight",)),
    "wrong shape": (lambda f: edit_weights(f, reshape), ("norm.weight", "7")),
}


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run ``vlmkit``, check that it fails as it should, and return its one line."""
    assert main(["generate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vlmkit: error: ")
    return lines[0]


@pytest.mark.parametrize("case", BROKEN_CHECKPOINTS)
def test_broken_checkpoint(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    breaking, names = BROKEN_CHECKPOINTS[case]
    folder = breaking(checkpoint(tmp_path / "model"))
    message = fails(capsys, "--model", str(folder), "--prompt", "Hi")
    assert all(name in message for name in names), message
    assert str(folder) in message or folder.name in message


def test_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "--model", str(tmp_path / "nowhere"), "--prompt", "Hi")
    assert "nowhere" in message


def test_thinking_budget_without_markers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = without_thinking(checkpoint(tmp_path / "model"))
    message = fails(capsys, "--model", str(folder), "--prompt", "Hi", "--thinking-budget", "3")
    assert "<think>" in message


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no usable images."""
    tmp_path = tmp_path_factory.mktemp("pictures")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    whole = (SHAPES / "samples" / "count_all.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png", compress_level=1)
    Image.new("RGB", (2000, 4)).save(tmp_path / "strip.png")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["empty", "text", "half", "bomb", "strip", "folder", "missing"])
def test_unusable_image(name: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = pictures / f"{name}.png"
    assert file.name in fails(capsys, "--image", str(file), "--prompt", "What is this?")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--prompt", "<|image_pad|> hi", "template.apply=false"], ["1 image placeholder"]),
        (["--prompt", "word " * 3000], ["2048"]),
        (["--prompt", "Hi", "--temperature", "-1"], ["temperature"]),
        (["--prompt", "Hi", "--temperature", "nan"], ["temperature"]),
        (["--prompt", "Hi", "--top-p", "0"], ["top_p"]),
        (["--prompt", "Hi", "--top-p", "1.5"], ["top_p"]),
        (["--prompt", "Hi", "--top-k", "-3"], ["top_k"]),
        (["--prompt", "Hi", "--min-p", "2"], ["min_p"]),
        (["--prompt", "Hi", "--max-tokens", "-1"], ["max_tokens"]),
        (["--prompt", "Hi", "--repetition-penalty", "0"], ["repetition_penalty"]),
        (["--prompt", "Hi", "--kv-bits", "7"], ["kv_bits"]),
        (["--prompt", "Hi", "--kv-bits", "8", "--kv-group-size", "64"], ["64", "32"]),
        (["--prompt", "Hi", "--max-kv-size", "0"], ["max_kv_size"]),
        (["--prompt", "Hi", "--prefill-step-size", "0"], ["prefill_step_size"]),
        (["--prompt", "Hi", "--thinking-budget", "-1"], ["thinking_budget"]),
        (["--prompt", "Hi", "--audio", "speech.wav"], ["audio", "qwen2_vl"]),
        (["--prompt", "Hi", "sampling.0.kind=top_kk"], ["top_kk", "top_k"]),
        (["--prompt", "Hi", "sampler=[]"], ["sampler", "sampling"]),
        (["--prompt", "Hi", "--seed", "-1"], ["seed"]),
        ([], ["prompt"]),
    ],
)
def test_bad_request(
    arguments: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, *arguments)
    assert all(name in message for name in names), message

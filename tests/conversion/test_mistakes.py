"""A conversion's mistakes are one line: where they are, and what would work."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from vlmkit.cli.main import main
from vlmkit.conversion import ConvertConfig, convert
from vlmkit.conversion.shards import plan_shards
from vlmkit.errors import VlmkitError

RULE = "quantization:\n  rules:\n    - "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bits: 4", "convert.yaml:1: bits: unknown key"),
        (
            "quantization:\n  bits: 7",
            "convert.yaml:2: quantization: affine has no bits 7; use 2, 3, 4, 5, 6, 8",
        ),
        (
            "quantization:\n  mode: nvfp4\n  group_size: 32",
            "convert.yaml:3: quantization: nvfp4 has no group_size 32; use 16",
        ),
        ("quantization: {mode: mxfp5}", "convert.yaml:1: quantization.mode: "),
        ("shard_gb: 0", "convert.yaml:1: shard_gb: "),
        (
            f"{RULE}modules: vision_towr\n      keep: true",
            "convert.yaml:3: quantization.rules.0.modules: 'vision_towr' matches no module that "
            "can be packed; they begin with language_model, vision_tower; did you mean "
            "'vision_tower'?",
        ),
        (
            f"{RULE}modules: vision_tower\n      keep: true\n      bits: 8",
            "convert.yaml:4: quantization.rules.0: a rule that keeps modules has no bits",
        ),
        (
            f"{RULE}modules: vision_tower.blocks.0.attn\n      group_size: 128",
            "convert.yaml:4: quantization: vision_tower.blocks.0.attn.proj has 96 inputs, which "
            "groups of 128 do not divide; use group_size 32 there, or a rule that keeps it: "
            "{modules: vision_tower.blocks.0.attn.proj, keep: true}",
        ),
        (
            f"{RULE}modules: '*'\n      keep: true",
            "convert.yaml:2: quantization: no module is packed; leave it out",
        ),
    ],
)
def test_a_config(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "convert.yaml"
    file.write_text(text)
    assert main(["convert", "shapes", str(tmp_path / "new"), str(file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("vlmkit: error: ")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["convert.yaml"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["vlmkit:convert/affine_4bit.yaml", "quantization.group_size=32"]
    assert main(["convert", "shapes", str(tmp_path / "new"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'new'}: ")
    assert lines[1] == "29 modules affine 4-bit, group size 32"
    assert main(["schema", "--convert"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "vlmkit convert"


def test_a_scheme_that_this_mlx_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = mx.quantize

    def older(array: mx.array, group_size: int, bits: int, mode: str) -> object:
        if mode == "mxfp8":
            raise ValueError("[quantize] Invalid quantization mode 'mxfp8'.")
        return known(array, group_size, bits, mode=mode)

    monkeypatch.setattr(mx, "quantize", older)
    with pytest.raises(VlmkitError, match=r"mxfp8 8-bit, group size 32 is not in this MLX \(0\."):
        convert("shapes", tmp_path / "new", ConvertConfig(quantization={"mode": "mxfp8"}))


def test_an_architecture_whose_names_are_not_known(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    mx.save_safetensors(str(source / "model.safetensors"), {"a": mx.zeros(1)})
    config = {"model_type": "sees_somehow", "vision_config": {"hidden_size": 8}}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(VlmkitError, match=r"model_type 'sees_somehow': how MLX tools name its"):
        convert(source, tmp_path / "new")


def test_too_many_files() -> None:
    arrays = dict.fromkeys(map(str, range(10_001)), mx.zeros(1))
    with pytest.raises(VlmkitError, match=r"shard_gb: that is 10,001 weight files, of at most 10,"):
        plan_shards(arrays, 1)

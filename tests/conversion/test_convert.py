"""A conversion is whole or not there, follows its rules, and says what is wrong with its input."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import vlmkit
from tests.conversion.text_checkpoint import write_text
from vlmkit.conversion import ConvertConfig, convert, load_convert
from vlmkit.conversion.config import convert_schema_text
from vlmkit.errors import VlmkitError
from vlmkit.loading import Scheme, load_model_and_report, read_checkpoint, resolve_checkpoint

ROOT = Path(vlmkit.__file__).parent.parent
SCHEMA = ROOT / "configs" / "convert.schema.json"
FILES = sorted((ROOT / "configs" / "convert").glob("*.yaml"))
SHAPES = resolve_checkpoint("shapes")


def packed(**values: Any) -> ConvertConfig:
    return ConvertConfig(quantization=values)


def test_the_schema_file_is_current(update_golden: bool) -> None:
    if update_golden:
        SCHEMA.write_text(convert_schema_text(), encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == convert_schema_text(), "pytest --update-golden"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_converts_the_embedded_model(path: Path, tmp_path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../convert.schema.json"
    assert second.startswith("# ")
    done = convert("shapes", tmp_path / "new", load_convert(path).config)
    _, report = load_model_and_report(tmp_path / "new", dtype="float32", dequantize=False)
    assert set(report.schemes.values()) == set(done.schemes.values())
    assert len(report.schemes) == len(done.schemes)


def test_eight_bits_answer_as_the_original(tmp_path: Path) -> None:
    convert("shapes", tmp_path / "new", packed(bits=8, group_size=32))
    texts = []
    for name in ("shapes", str(tmp_path / "new")):
        model, processor = vlmkit.load(name)
        prompt = vlmkit.apply_chat_template(
            processor, model.config, "How many shapes are there?", num_images=1
        )
        image = "vlmkit:shapes/samples/count_all.png"
        texts.append(vlmkit.generate(model, processor, prompt, image=image, max_tokens=8).text)
    assert texts[0] == texts[1] != ""


def test_the_first_rule_counts_and_encoders_are_kept_unless_named(tmp_path: Path) -> None:
    rules = [
        {"modules": "*.layers.0.mlp.down_proj", "bits": 8},
        {"modules": "language_model.model.layers.0", "keep": True},
        {"modules": ["*.layers.1.mlp", "vision_tower.blocks.0.attn"], "mode": "mxfp4"},
    ]
    done = convert("shapes", tmp_path / "new", packed(bits=4, group_size=32, rules=rules))
    layers = "language_model.model.layers"
    assert done.schemes[f"{layers}.0.mlp.down_proj"] == Scheme(64, 8, "affine")
    assert f"{layers}.0.mlp.up_proj" not in done.schemes
    assert done.schemes[f"{layers}.1.mlp.up_proj"] == Scheme(32, 4, "mxfp4")
    assert done.schemes[f"{layers}.1.self_attn.q_proj"] == Scheme(32, 4, "affine")
    assert {path for path in done.schemes if path.startswith("vision")} == {
        "vision_tower.blocks.0.attn.qkv",
        "vision_tower.blocks.0.attn.proj",
    }
    said = json.loads((tmp_path / "new" / "config.json").read_text())["quantization"]
    assert {path for path, scheme in done.schemes.items() if scheme != (32, 4, "affine")} == {
        key for key, value in said.items() if isinstance(value, dict)
    }


def test_dtype_shards_and_other_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SHAPES, source)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    (source / "config.json").write_text(
        json.dumps(json.loads((SHAPES / "config.json").read_text()) | {"torch_dtype": "bfloat16"})
    )
    new = tmp_path / "new"
    new.mkdir()  # an empty one may be there
    done = convert(source, new, ConvertConfig(dtype="float16", shard_gb=0.5e-3))
    checkpoint = read_checkpoint(new)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"F16"}
    assert checkpoint.config["torch_dtype"] == "float16"
    assert len(checkpoint.files) == done.num_files > 1
    assert max(path.stat().st_size for path in checkpoint.files) < 0.6e6
    index = json.loads((new / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(checkpoint.tensors)
    assert index["metadata"]["total_size"] == done.num_bytes
    for path in source.rglob("*"):
        if path.is_file() and path.name not in ("config.json", "model.safetensors", "samples.json"):
            if path.suffix not in (".json", ".txt", ".jinja"):
                continue
            copy = new / path.relative_to(source)
            assert copy.read_bytes() == path.read_bytes()


def test_memory_stays_below_twice_the_largest_file(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8}
    source = write_text(tmp_path / "source", "llama", num_key_value_heads=4, **sizes)
    total = (source / "model.safetensors").stat().st_size
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    convert(source, tmp_path / "new", ConvertConfig(quantization={"bits": 8}, shard_gb=0.002))
    peak = mx.get_peak_memory() - before
    largest = max(path.stat().st_size for path in (tmp_path / "new").glob("*.safetensors"))
    assert total > 6 * largest
    assert peak < 2 * largest


KILLED = """
import os, signal, sys
from vlmkit.conversion import convert, ConvertConfig
import vlmkit.conversion.folder as module
write = module.write_shard
def killed(path, arrays, names):
    write(path, arrays, names)
    os.kill(os.getpid(), signal.SIGKILL)
module.write_shard = killed
convert("shapes", sys.argv[1], ConvertConfig(shard_gb=1e-4))
"""


def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    target = tmp_path / "new"
    command = [sys.executable, "-c", KILLED, str(target)]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.new\.[0-9a-f]+\.part", left.name)
    assert not target.exists()
    convert("shapes", target)  # what is left is in nobody's way


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(VlmkitError, match=r"model\.safetensors: cannot be written: File too"):
            convert("shapes", tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(VlmkitError, match=r"has 0\.0 GB of free space, and the weights take"):
        convert("shapes", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vlmkit.conversion.folder as module

    def taken(*_: Any) -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "theirs").write_text("")

    monkeypatch.setattr(module, "_copy_others", taken)
    with pytest.raises(VlmkitError, match=r"new: cannot be written: Directory not empty"):
        convert("shapes", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


Prepare = Callable[[Path], tuple[Path, Path]]


def _in_source(folder: Path) -> tuple[Path, Path]:
    shutil.copytree(SHAPES, folder / "source")
    return folder / "source", folder / "source" / "new"


def _taken(folder: Path) -> tuple[Path, Path]:
    (folder / "file").write_text("")
    return SHAPES, folder


def _file(folder: Path) -> tuple[Path, Path]:
    (folder / "file").write_text("")
    return SHAPES, folder / "file"


def _packed(folder: Path) -> tuple[Path, Path]:
    convert("shapes", folder / "packed", packed())
    return folder / "packed", folder / "new"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_in_source, r"new' lies in '.*source', which is read; give another name"),
        (_taken, r"is there already; give another name"),
        (_file, r"file' is a file; give the name of a new folder"),
        (lambda folder: (SHAPES, folder / "no" / "new"), r"new': there is no folder '.*no'"),
        (_packed, r"packed' is quantized already; convert the checkpoint that it was made from"),
    ],
)
def test_bad_folders(prepare: Prepare, message: str, tmp_path: Path) -> None:
    source, target = prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(VlmkitError, match=message):
        convert(source, target)
    assert sorted(tmp_path.rglob("*")) == before

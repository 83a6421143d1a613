"""A small complete checkpoint, and loading it by the API, the command line and a YAML file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loading.mlx_vlm_convert import write_source
from vlmkit import load
from vlmkit.cli.main import EXIT_BAD_INPUT, EXIT_OK, main
from vlmkit.errors import VlmkitError

Change = Callable[[Path], object]
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}<|vision_start|>"
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 4982000000\n"
)


def complete(folder: Path, model_type: str = "qwen2_vl", *, nested: bool = False) -> Path:
    """A checkpoint of every file that loading reads; its vocabulary is 64 words."""
    write_source(folder, model_type, nested=nested)
    edit(folder / "generation_config.json", eos_token_id=[57], bos_token_id=56, pad_token_id=None)
    edit(folder / "chat_template.json", chat_template=TEMPLATE)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; ``a__b`` is key b of object a."""
    values = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in changes.items():
        *outer, key = name.split("__")
        section = values
        for part in outer:
            section = section.setdefault(part, {})
        section[key] = value
    path.write_text(json.dumps(values))


def _state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """The message that refuses a folder: the same one line three ways, and nothing written."""
    (folder.parent / "run.yaml").write_text(json.dumps({"model": str(folder), "prompt": "w1"}))
    before = _state(folder.parent)
    with pytest.raises(VlmkitError) as caught:
        load(str(folder), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    if not options:
        for argv in (
            ["generate", "--model", str(folder), "--prompt", "w1"],
            ["generate", str(folder.parent / "run.yaml")],
        ):
            assert main(argv) == EXIT_BAD_INPUT, argv
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith("vlmkit: error: ")
            assert err.endswith(f"{message}\n")
            assert err.count("\n") == 1
    assert _state(folder.parent) == before
    return message


def runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What a command that generates from a folder writes to stdout and stderr."""
    argv = ["generate", "--model", str(folder), "--prompt", "w1", "--max-tokens", "2"]
    code = main(argv)
    out, err = capsys.readouterr()
    assert code == EXIT_OK, err
    return out, err

"""Prompts and images of the wrong kind from the command line and from YAML."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.reply import Command


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prompt: 3", "prompt: must be text, got 3; in YAML, put it in quotes"),
        ("prompt: 1.5", "prompt: must be text, got 1.5; in YAML, put it in quotes"),
        ("prompt: true", "prompt: must be text, got True; in YAML, put it in quotes"),
        ("prompt: [12, 13]", "prompt: must be text, got [12, 13]"),
        ("prompt: {role: user, content: Hi}", "prompt: must be text, got {'role': 'user', "),
        ("prompt: null", "prompt: must be text, got None"),
        ("images: a.png", "images: must be a list, got "),
        ("images: [[a.png, b.png]]", "images.0: must be text, got ['a.png', 'b.png']"),
        ("images: [3]", "images.0: must be text, got 3"),
        ("template: {enable_thinking: maybe}", "template.enable_thinking: must be true or false"),
        ("template: {tools: []}", "template.tools: unknown key"),
    ],
)
def test_wrong_types_in_yaml(command: Command, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(("" if line.startswith("prompt") else "prompt: Hi\n") + line + "\n")
    reply = command("generate", str(file))
    number = 1 if line.startswith("prompt") else 2
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr.startswith(f"vlmkit: error: {file}:{number}: {message}"), reply.stderr
    assert reply.stderr.count("\n") == 1


def test_standard_input_that_is_no_text(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.TextIOWrapper(io.BytesIO(b"ab\xff\xfe"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", raw)
    reply = command("generate", "--prompt", "-")
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr == (
        "vlmkit: error: prompt: standard input is not UTF-8 text (byte 2); give text, and images"
        " with --image\n"
    )

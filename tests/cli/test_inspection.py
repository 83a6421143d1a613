"""``vlmkit inspect`` and ``vlmkit models``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.reply import Command
from tests.loading.qwen3_5 import make_config_of, write_checkpoint
from tests.loading.test_text_part import CONFIGS, write
from tests.processors.tiny import change_json
from vlmkit.models.families import FAMILIES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", make_config_of("qwen3_5_moe"))


def test_a_page(folder: Path, command: Command) -> None:
    reply = command("inspect", str(folder))
    assert (reply.code, reply.stderr) == (0, "")
    lines = dict(line.split("  ", 1) for line in reply.stdout.splitlines())
    facts = {name: text.strip() for name, text in lines.items()}
    assert facts["model type"] == "qwen3_5_moe (family qwen3_5_moe)"
    assert facts["takes"] == "text, image, video"
    assert facts["decoder"] == "4 layers: 3 recurrent, 1 attention (2 KV heads of 32)"
    assert facts["experts"] == "2 of 6 per token in 4 layers, one shared"
    assert facts["vision"] == "2 blocks; a visual token is 8x8 pixels"
    assert facts["weights"].startswith("1 file, ")
    assert "F32" in facts["weights"]
    assert facts["runs"] == "yes"
    found = json.loads(command("inspect", str(folder), "--json").stdout)
    assert found["facts"]["decoder"] == facts["decoder"]
    assert (found["runs"], found["problems"], found["takes"]) == (
        True,
        [],
        ["text", "image", "video"],
    )


def test_what_is_missing_is_said_all_at_once(folder: Path, command: Command) -> None:
    (folder / "tokenizer.json").unlink()
    change_json(folder / "config.json", model_type="qwen3_omni_moe")
    reply = command("inspect", str(folder))
    assert (reply.code, reply.stderr) == (1, "")
    unknown, tokenizer = (line for line in reply.stdout.splitlines() if line.startswith("- "))
    assert unknown == (
        "- config.json: model_type 'qwen3_omni_moe' is not supported; the nearest that are: "
        "qwen3_5_moe, qwen3_vl_moe, qwen3_5; 'vlmkit models' lists all, and text-only checkpoints "
        "run through mlx-lm"
    )
    assert "no tokenizer" in tokenizer
    assert "\nruns        no\n" in reply.stdout
    assert "takes       nothing: no model of this type" in reply.stdout


def test_parts_that_are_left_out(folder: Path, command: Command) -> None:
    (folder / "preprocessor_config.json").unlink()
    (folder / "chat_template.json").unlink()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change_json(folder / "tokenizer_config.json", chat_template=None)
    found = json.loads(command("inspect", str(folder), "--json").stdout)
    assert (found["runs"], found["takes"]) == (True, ["text"])
    assert any("no preprocessor_config.json" in problem for problem in found["problems"])
    assert any("no chat template" in problem for problem in found["problems"])
    (folder / "model.safetensors").unlink()
    reply = command("inspect", str(folder))
    assert reply.code == 1
    assert "model.safetensors" in reply.stdout


def test_text_parts(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "model", CONFIGS["nested"])
    reply = command("inspect", str(folder))
    assert reply.code == 0
    assert "pixtral (text only, through mlx-lm)" in reply.stdout
    assert "- " in reply.stdout
    assert "only the text part of this pixtral checkpoint runs" in reply.stdout


def test_no_folder_is_bad_input(command: Command, tmp_path: Path) -> None:
    reply = command("inspect", str(tmp_path / "nothing"))
    assert reply.code == 2
    assert reply.stderr.count("\n") == 1
    assert "no checkpoint folder" in reply.stderr


def test_every_family_is_in_the_table(command: Command) -> None:
    lines = command("models").stdout.splitlines()
    assert lines[0].split() == ["model_type", "takes", "verified", "about"]
    for family, line in zip(FAMILIES, lines[1:], strict=False):
        for words in (family.model_types, family.takes, family.verified, (family.about,)):
            assert ", ".join(words) in line
    found = json.loads(command("models", "--json").stdout)["families"]
    assert list(found) == [family.name for family in FAMILIES]
    assert found["qwen3_vl"]["takes"] == ["text", "image", "video"]

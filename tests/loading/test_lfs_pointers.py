"""Files that Git LFS has not fetched: every message says what they are and what to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loading.checkpoints import make_config, random_weights, write_checkpoint
from tests.loading.three_ways import POINTER, complete, edit, refusal
from vlmkit.errors import VlmkitError
from vlmkit.loading import read_checkpoint

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SAID = (
    "is a Git LFS pointer, not yet the file of 4,982,000,000 bytes: run 'git lfs pull' in its "
    "folder, or load the checkpoint by its hub id"
)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "preprocessor_config.json",
        "processor_config.json",
        "chat_template.json",
        "chat_template.jinja",
    ],
)
def test_every_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = complete(tmp_path / "model")
    (folder / name).write_text(POINTER)
    assert refusal(folder, capsys) == f"{str(folder / name)!r} {SAID}"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"])
def test_every_file_of_transformers(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = complete(tmp_path / "model")
    if name != "tokenizer.json":
        edit(folder / "vocab.json", w0=0)
    (folder / name).write_text(POINTER)
    message = refusal(folder, capsys, processor_backend="transformers")
    assert message == f"{str(folder / name)!r} {SAID}"


@pytest.mark.parametrize("name", [*SHARDS, "model.safetensors.index.json"])
def test_shards_and_their_index(name: str, tmp_path: Path) -> None:
    config = make_config()
    folder = write_checkpoint(tmp_path, config, random_weights(config), files=SHARDS)
    (folder / name).write_text(POINTER)
    with pytest.raises(VlmkitError) as caught:
        read_checkpoint(folder)
    assert str(caught.value) == f"{str(folder / name)!r} {SAID}"


def test_a_pointer_without_its_size_is_one_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = complete(tmp_path / "model")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is a Git LFS pointer, not yet the file: run 'git lfs pull'" in refusal(folder, capsys)

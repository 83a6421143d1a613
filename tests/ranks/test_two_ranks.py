"""Two ranks give what one process gives, and the same bytes on each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.loading.checkpoints import make_config, random_weights, relative_error, write_checkpoint
from tests.loading.qwen3_5 import write_qwen3_5
from tests.ranks.pair import run_ranks
from tests.ranks.worker import compute

SCHEME: dict[str, Any] = {"group_size": 32, "bits": 8, "mode": "affine"}
CHECKPOINTS = ("tied", "untied", "odd_vocabulary", "packed", "qwen3_5")
ANSWERS = ("Describe the image.", "How many circles?")


def _write(folder: Path, name: str) -> Path:
    if name == "qwen3_5":
        return write_qwen3_5(folder / name)
    model_type = "qwen2_5_vl" if name == "untied" else "qwen2_vl"
    config = make_config(model_type, tied=name in ("tied", "packed"))
    if name == "odd_vocabulary":
        config["vocab_size"] = 63
    weights: Mapping[str, Any] = random_weights(config)
    if name == "packed":
        config["quantization"] = SCHEME
        weights = _packed(weights)
    return write_checkpoint(folder / name, config, weights)


def _packed(weights: Mapping[str, Any]) -> dict[str, mx.array]:
    result = {}
    for name, value in weights.items():
        if name.startswith("model.") and name.endswith(("_proj.weight", "embed_tokens.weight")):
            parts = mx.quantize(mx.array(value), **SCHEME)
            names = ("weight", "scales", "biases")
            result |= {
                name.removesuffix("weight") + n: x for n, x in zip(names, parts, strict=True)
            }
        else:
            result[name] = mx.array(value)
    return result


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process finds, then rank 0, then rank 1."""
    folder = tmp_path_factory.mktemp("ranks")
    folders = [_write(folder, name) for name in CHECKPOINTS]
    outputs = [folder / "0.json", folder / "1.json"]
    words = [["-m", "tests.ranks.worker", str(out), *map(str, folders)] for out in outputs]
    for ended in run_ranks(folder, *words):
        assert ended.code == 0, ended.stderr
    return [compute(folders), *(json.loads(out.read_text()) for out in outputs)]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_random_checkpoints(name: str, found: list[dict[str, Any]]) -> None:
    alone, first, second = (one[name] for one in found)
    assert first == second  # to the last bit
    assert first["tokens"] == alone["tokens"]
    for part in ("logits", "after"):
        logits, expected = np.array(first[part]), np.array(alone[part])
        assert logits.shape == expected.shape
        assert relative_error(logits, expected) < 1e-5
    assert [2 * heads for heads in first["heads"]] == alone["heads"]


@pytest.mark.parametrize("prompt", ANSWERS)
def test_the_embedded_model_answers(prompt: str, found: list[dict[str, Any]]) -> None:
    alone, first, second = (one[prompt] for one in found)
    assert alone == first == second
    assert alone["text"].strip()


def test_seconds_are_those_of_rank_0(found: list[dict[str, Any]]) -> None:
    assert [one["seconds"] for one in found] == [12.25] * 3

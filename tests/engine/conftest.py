"""The models of these tests: the embedded one, a weaker copy of it, a small random one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.engine.contrasted import (
    ASSETS,
)
from tests.search.toy import qwen2
from vlmkit import load
from vlmkit.models.lm_adapter import LmModel


@pytest.fixture(scope="session")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


@pytest.fixture(scope="session")
def amateur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint with its last block nearly switched off."""
    folder = tmp_path_factory.mktemp("amateur")
    shutil.copytree(ASSETS, folder, dirs_exist_ok=True)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    touched = [name for name in weights if "layers.3" in name and "down_proj" in name]
    assert touched
    for name in touched:
        weights[name] = weights[name] * 0.2
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


@pytest.fixture(scope="session")
def tiny(shapes: tuple[Any, Any]) -> tuple[LmModel, Any]:
    """The small random Qwen2 with the tokenizer of `shapes`."""
    return qwen2(), dataclasses.replace(shapes[1], eos_token_ids=frozenset([5, 9]))

"""Text-only checkpoints with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from vlmkit.models.lm_build import build_lm


def write_text(folder: Path, model_type: str, **values: Any) -> Path:
    """Write a bfloat16 checkpoint of an architecture of mlx-lm."""
    folder.mkdir()
    config = {
        "model_type": model_type,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
    } | values
    arrays = {
        name: mx.random.uniform(-1, 1, value.shape, mx.bfloat16, mx.random.key(index))
        for index, (name, value) in enumerate(tree_flatten(build_lm(config).parameters()))
    }
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    (folder / "config.json").write_text(json.dumps(config))
    return folder

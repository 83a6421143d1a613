"""Text-only checkpoints: loaded by us and by mlx-lm, they give the same logits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.loading.checkpoints import logits_of, relative_error
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import KVSpec
from vlmkit.errors import VlmkitError
from vlmkit.loading import load_model, load_model_and_report
from vlmkit.models.lm_build import build_lm

IDS = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)
CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
}


def _write(folder: Path, config: dict[str, Any], scheme: dict[str, Any] | None = None) -> Path:
    lm = build_lm({key: value for key, value in config.items() if key != "model_file"})
    rng = np.random.default_rng(0)
    weights: dict[str, mx.array] = {}
    for path, value in tree_flatten(lm.parameters()):
        array = mx.array(rng.standard_normal(value.shape, dtype=np.float32) / 8)
        if scheme and path.endswith("_proj.weight"):
            parts = zip(("weight", "scales", "biases"), mx.quantize(array, **scheme), strict=True)
            weights |= {path.removesuffix("weight") + part: packed for part, packed in parts}
        else:
            weights[path] = array
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_logits_are_those_of_mlx_lm(bits: int | None, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model as load_with_mlx_lm

    scheme = {"group_size": 64, "bits": bits} if bits else None
    section = {"quantization": scheme} if scheme else {}
    folder = _write(tmp_path, CONFIG | section, scheme)
    theirs, _ = load_with_mlx_lm(folder)
    expected = np.array(theirs(mx.array(IDS)[None])[0])
    for dequantize in (True, False):
        model, report = load_model_and_report(folder, dequantize=dequantize, dtype="float32")
        assert (report.family, len(report.schemes)) == ("mlx_lm", 14 if bits else 0)
        logits = logits_of(model, Inputs.of(IDS))
        assert relative_error(logits, expected) < 1e-4


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = _write(tmp_path, CONFIG)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": 3}))
    with pytest.raises(VlmkitError, match=r"11 missing \(model\.layers\.2\.input_layernorm"):
        load_model(folder)


def test_own_code_runs_only_when_trusted(tmp_path: Path) -> None:
    folder = _write(tmp_path, CONFIG | {"model_file": "own.py"})
    (folder / "own.py").write_text("from mlx_lm.models.qwen3 import Model, ModelArgs\n")
    with pytest.raises(VlmkitError, match="pass trust_remote_code=True if you trust it"):
        load_model(folder)
    assert "checkpoint_model" not in sys.modules
    assert load_model(folder, trust_remote_code=True).layer_specs == (KVSpec(2, 16, 16),) * 2
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_file": "../own.py"}))
    with pytest.raises(VlmkitError, match=r"model_file 'own\.py' is not in"):
        load_model(folder, trust_remote_code=True)

"""What we convert is what mlx-vlm and mlx-lm convert, tensor by tensor, and runs there."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.conversion.text_checkpoint import write_text
from tests.loading import qwen3_5
from tests.loading.checkpoints import logits_of, make_inputs, relative_error
from tests.loading.mlx_vlm_convert import GOLDENS, RECIPES, mlx_vlm_logits, write_source
from tests.loading.mlx_vlm_convert import convert as mlx_vlm_convert
from vlmkit.conversion import ConvertConfig, convert
from vlmkit.loading import load_model

TOLERANCE = 1e-3
HIGH = ["*.lm_head", "*.embed_tokens", "*.layers.1.*.v_proj", "*.layers.1.*.down_proj"]
OURS: dict[str, dict[str, Any]] = {
    "unquantized": {},
    "affine4": {"quantization": {}},
    "affine8": {"quantization": {"bits": 8, "group_size": 32}},
    "mxfp4": {"quantization": {"mode": "mxfp4"}},
    "mixed": {"quantization": {"rules": [{"modules": HIGH, "bits": 8}]}},
}
TEXT: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen3_moe": {  # its routers are packed in 8 bits
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "head_dim": 16,
    },
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("convert") / "source")


def weights(folder: Path) -> dict[str, mx.array]:
    found: dict[str, mx.array] = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded = mx.load(str(path))
        assert isinstance(loaded, dict)
        found |= loaded
    return found


def assert_same(ours: Path, theirs: Path) -> None:
    found, expected = weights(ours), weights(theirs)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert mx.array_equal(found[name], array), name


def section(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    assert config.get("quantization") == config.get("quantization_config")
    found: dict[str, Any] = config.get("quantization", {})
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_what_mlx_vlm_wrote(recipe: str, source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "new", ConvertConfig(**OURS[recipe]))
    assert_same(tmp_path / "new", GOLDENS / recipe)
    index = "model.safetensors.index.json"
    new, old = (json.loads((at / index).read_text()) for at in (tmp_path / "new", GOLDENS / recipe))
    assert new == old
    if recipe != "mixed":  # mlx-vlm then names every module
        assert section(tmp_path / "new") == section(GOLDENS / recipe)
    model = load_model(tmp_path / "new", dtype="float32")
    logits = logits_of(model, make_inputs())
    assert relative_error(logits, np.load(GOLDENS / recipe / "logits.npy")) < TOLERANCE


def test_delta_nets_are_what_mlx_vlm_wrote(tmp_path: Path) -> None:
    made = qwen3_5.write_qwen3_5(tmp_path / "source", dtype=mx.bfloat16)
    convert(made, tmp_path / "new", ConvertConfig(quantization={}))
    assert_same(tmp_path / "new", GOLDENS / "qwen3_5_affine4")


def test_a_folder_of_mlx_stays_as_it_is(tmp_path: Path) -> None:
    convert(GOLDENS / "unquantized", tmp_path / "new")
    assert_same(tmp_path / "new", GOLDENS / "unquantized")


@pytest.mark.parametrize("model_type", TEXT)
def test_text_is_what_mlx_lm_makes(model_type: str, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model as load_with_mlx_lm
    from mlx_lm.utils import quantize_model

    made = write_text(tmp_path / "source", model_type, **TEXT[model_type])
    convert(made, tmp_path / "new", ConvertConfig(quantization={"bits": 4}))
    model, config = load_with_mlx_lm(made)
    theirs, config = quantize_model(model, config, 64, 4)
    expected = dict(tree_flatten(theirs.parameters()))
    found = weights(tmp_path / "new")
    assert found.keys() == expected.keys()
    assert all(mx.array_equal(found[name], expected[name]) for name in expected)
    said = section(tmp_path / "new")
    assert {key: said[key] for key in ("group_size", "bits", "mode")} == {
        key: config["quantization"][key] for key in ("group_size", "bits", "mode")
    }
    ids = mx.array([[1, 2, 3, 4]])
    again, _ = load_with_mlx_lm(tmp_path / "new")
    assert mx.allclose(again(ids), theirs(ids), atol=1e-5)
    load_model(tmp_path / "new")


@pytest.mark.mlx_vlm
@pytest.mark.torch
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_it_is_what_mlx_vlm_writes_and_runs(model_type: str, tmp_path: Path) -> None:
    made = write_source(tmp_path / "source", model_type)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
        for recipe in RECIPES:
            new, theirs = tmp_path / f"{recipe}-new", tmp_path / recipe
            convert(made, new, ConvertConfig(**OURS[recipe]))
            mlx_vlm_convert(made, theirs, recipe)
            assert_same(new, theirs)
            logits = logits_of(load_model(new, dtype="float32"), make_inputs())
            assert relative_error(logits, mlx_vlm_logits(new)) < TOLERANCE


@pytest.mark.mlx_vlm
@pytest.mark.torch
def test_packed_encoders_and_rules_run_in_mlx_vlm(tmp_path: Path) -> None:
    made = qwen3_5.write_qwen3_5(tmp_path / "source", dtype=mx.bfloat16)
    rules = [
        {"modules": "vision_tower.blocks.*.attn", "bits": 8, "group_size": 32},
        {"modules": "*.down_proj", "bits": 8},
        {"modules": "*.layers.0", "keep": True},
        {"modules": "*.lm_head", "mode": "mxfp8"},
    ]
    new = tmp_path / "new"
    done = convert(made, new, ConvertConfig(quantization={"bits": 4, "rules": rules}))
    assert any(path.startswith("vision_tower") for path in done.schemes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = mlx_vlm_logits(new, qwen3_5.make_inputs())
    logits = logits_of(load_model(new, dtype="float32"), qwen3_5.make_inputs())
    assert relative_error(logits, expected) < TOLERANCE


@pytest.mark.mlx_vlm
@pytest.mark.torch
@pytest.mark.parametrize("family", ["qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe"])
def test_experts_and_kin_are_what_mlx_vlm_writes(family: str, tmp_path: Path) -> None:
    from mlx_vlm.convert import convert as convert_with_mlx_vlm

    config = qwen3_5.make_config_of(family)
    made = qwen3_5.write_checkpoint(tmp_path / "source", config, dtype=mx.bfloat16)
    new, theirs = tmp_path / "new", tmp_path / "theirs"
    convert(made, new, ConvertConfig(quantization={"bits": 4, "group_size": 32}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert_with_mlx_vlm(str(made), str(theirs), quantize=True, q_bits=4, q_group_size=32)
        expected = mlx_vlm_logits(new, qwen3_5.make_inputs())
    assert_same(new, theirs)
    logits = logits_of(load_model(new, dtype="float32"), qwen3_5.make_inputs())
    assert relative_error(logits, expected) < TOLERANCE

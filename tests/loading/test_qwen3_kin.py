"""Checkpoints of the families beside Qwen3.5: experts, features that join decoder layers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.loading.checkpoints import logits_of, relative_error
from tests.loading.mlx_vlm_convert import GOLDENS, convert, mlx_vlm_logits
from tests.loading.qwen3_5 import (
    as_mlx,
    make_config_of,
    make_inputs,
    make_parts,
    make_weights,
    write_checkpoint,
)
from tests.models.tiny_configs import qwen3_5_moe, qwen3_vl, qwen3_vl_moe
from vlmkit import load
from vlmkit.errors import VlmkitError
from vlmkit.loading import Scheme, load_model, load_model_and_report
from vlmkit.models.families import find_family

FAMILIES = ("qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe")
TOLERANCE = 1e-3  # as for the other families
GOLDEN = GOLDENS / "qwen3_vl_moe_affine4"
RECIPES = ("unquantized", "affine4", "affine8", "mixed")


@pytest.mark.parametrize("dequantize", [True, False])
def test_golden_logits_of_a_converted_checkpoint(dequantize: bool) -> None:
    model, report = load_model_and_report(GOLDEN, dtype="float32", dequantize=dequantize)
    error = relative_error(logits_of(model, make_inputs()), np.load(GOLDEN / "logits.npy"))
    assert error < TOLERANCE
    assert report.family == "qwen3_vl_moe"
    packed = {path for path in report.schemes if "switch_mlp" in path}
    names = ("gate_proj", "up_proj")
    # Groups of 64 do not divide the 96 inputs of the third.
    assert packed == {f"language.layers.0.mlp.switch_mlp.{name}" for name in names}
    assert set(report.schemes.values()) == {Scheme(64, 4, "affine")}


@pytest.mark.mlx_vlm
@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_live_logits_of_converted_checkpoints(family: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", make_config_of(family), dtype=mx.bfloat16)
    for recipe in RECIPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
            made = convert(source, tmp_path / recipe, recipe)
            expected = mlx_vlm_logits(made, make_inputs())
        for dequantize in (True, False):
            model = load_model(made, dtype="float32", dequantize=dequantize)
            assert relative_error(logits_of(model, make_inputs()), expected) < TOLERANCE, recipe
        assert load(str(made))[1].image_processor is not None


@pytest.mark.torch
@pytest.mark.parametrize("shard", ["5GB", "100KB"])
@pytest.mark.parametrize("family", ["qwen3_5", *FAMILIES])
def test_transformers_saves_it(family: str, shard: str, tmp_path: Path) -> None:
    from tests.models import oracle

    config = make_config_of(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        reference: Any = oracle.build(config)
        reference.save_pretrained(tmp_path, max_shard_size=shard)
        (expected,), _ = oracle.logits(
            reference, [make_inputs()], np.zeros((1, 1), np.int32), image_token_id=631
        )
    assert (tmp_path / "model.safetensors.index.json").is_file() == (shard == "100KB")
    logits = logits_of(load_model(tmp_path, dtype="float32"), make_inputs())
    assert relative_error(logits, expected) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layout_is_the_same_model(family: str, tmp_path: Path) -> None:
    config = make_config_of(family)
    expected = logits_of(load_model(write_checkpoint(tmp_path / "hub", config)), make_inputs())
    parts = make_parts(config)
    layouts = {
        "single": _single_experts(parts),
        "mlx": dict(as_mlx(name, array, family) for name, array in parts.items()),
    }
    for name, arrays in layouts.items():
        folder = _written(tmp_path / name, config, arrays)
        np.testing.assert_array_equal(logits_of(load_model(folder), make_inputs()), expected)


def _single_experts(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name the experts' weights one by one, as older checkpoints do."""
    result = {}
    for name, array in parts.items():
        if ".switch_mlp." in name:
            for number, matrix in enumerate(array):
                result[name.replace(".switch_mlp.", f".experts.{number}.")] = matrix
        else:
            result[name] = array
    return result


def _written(folder: Path, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    contiguous = {name: mx.array(np.ascontiguousarray(array)) for name, array in arrays.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), contiguous)
    return folder


STACK = "model.language_model.layers.0.mlp.experts."


def test_experts_that_do_not_fit_are_one_clear_error(tmp_path: Path) -> None:
    config = make_config_of("qwen3_vl_moe")
    weights, parts = make_weights(config), make_parts(config)
    single = _single_experts(parts)
    gone = {name: array for name, array in single.items() if ".experts.3.up_proj" not in name}
    more = single | {f"{STACK}6.up_proj.weight": single[f"{STACK}5.up_proj.weight"]}
    odd = single | {f"{STACK}5.up_proj.weight": np.zeros((3, 64), np.float32)}
    fewer = weights | {f"{STACK}gate_up_proj": weights[f"{STACK}gate_up_proj"][:5]}
    for arrays, message in (
        (gone, r"switch_mlp.up_proj.weight': expert 3 is missing; .*num_experts is 6"),
        (more, "up_proj.weight': there are 7; config.json: num_experts is 6"),
        (odd, "up_proj.weight': the experts differ in shape"),
        (fewer, r"experts.gate_up_proj' is \[5, 64, 192\]; .*ask for \[6, 192, 64\]"),
    ):
        folder = _written(tmp_path / "model", config, arrays)
        with pytest.raises(VlmkitError, match=message) as error:
            load_model(folder)
        assert "\n" not in str(error.value)


BAD = [
    (qwen3_5_moe(num_experts=None), "text_config.num_experts is missing"),
    (qwen3_5_moe(num_experts_per_tok=7), "num_experts_per_tok is 7, and num_experts is 6"),
    (qwen3_5_moe(num_experts=2**28), "num_experts is 268435456; so many of 20 columns"),
    (qwen3_5_moe(shared_expert_intermediate_size=0), "shared_expert_intermediate_size is 0"),
    (qwen3_vl_moe(norm_topk_prob=False), "norm_topk_prob is false, which is not supported"),
    (qwen3_vl_moe(decoder_sparse_step=0), "decoder_sparse_step is 0"),
    (qwen3_vl(vision={"deepstack_visual_indexes": [0, 4]}), "ascending numbers below depth, 4"),
    (qwen3_vl(vision={"deepstack_visual_indexes": [2, 0]}), r"is \[2, 0\]; it has to be ascend"),
    (qwen3_vl(num_hidden_layers=1), "at most num_hidden_layers, 1, of them"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_configs_are_one_clear_error(config: dict[str, Any], message: str) -> None:
    family = find_family(config)
    assert family is not None
    with pytest.raises(VlmkitError, match=message) as error:
        family.parse(config)
    assert str(error.value).startswith("config.json: ")
    assert "\n" not in str(error.value)


def test_layers_have_experts_where_the_config_says() -> None:
    for changes, expected in (
        ({"mlp_only_layers": []}, (0, 1, 2)),
        ({"mlp_only_layers": [0]}, (1, 2)),
        ({"mlp_only_layers": [], "decoder_sparse_step": 2}, (1,)),
    ):
        config = qwen3_vl_moe(**changes)
        family = find_family(config)
        assert family is not None
        assert family.parse(config).text_config.sparse_layers == expected

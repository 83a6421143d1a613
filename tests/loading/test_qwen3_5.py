"""Qwen3.5 checkpoints of every tool that writes them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.loading.checkpoints import logits_of, relative_error
from tests.loading.mlx_vlm_convert import GOLDENS, convert, mlx_vlm_logits
from tests.loading.qwen3_5 import as_mlx, make_config, make_inputs, make_weights, write_qwen3_5
from tests.models.tiny import empty_cache
from vlmkit import load
from vlmkit.contracts.inputs import Media
from vlmkit.errors import VlmkitError
from vlmkit.loading import Scheme, load_model, load_model_and_report
from vlmkit.models.families import find_family
from vlmkit.processors import load_processor

TOLERANCE = 1e-3  # as for the other families
CONVERTED = {
    # Behind an mxfp4 embedding mlx-vlm computes in bfloat16, which is no reference.
    "unquantized": set(),
    "affine4": {Scheme(64, 4, "affine")},
    "affine8": {Scheme(32, 8, "affine")},
    "mixed": {Scheme(64, 4, "affine"), Scheme(64, 8, "affine")},
}
GOLDEN = GOLDENS / "qwen3_5_affine4"


@pytest.mark.parametrize("dequantize", [True, False])
def test_golden_logits_of_a_converted_checkpoint(dequantize: bool) -> None:
    model, report = load_model_and_report(GOLDEN, dtype="float32", dequantize=dequantize)
    error = relative_error(logits_of(model, make_inputs()), np.load(GOLDEN / "logits.npy"))
    assert error < TOLERANCE
    assert report.family == "qwen3_5"
    assert set(report.schemes.values()) == CONVERTED["affine4"]


@pytest.mark.mlx_vlm
@pytest.mark.torch
def test_live_logits_of_converted_checkpoints(tmp_path: Path) -> None:
    source = write_qwen3_5(tmp_path / "source", dtype=mx.bfloat16)
    for recipe, schemes in CONVERTED.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
            made = convert(source, tmp_path / recipe, recipe)
            expected = mlx_vlm_logits(made, make_inputs())
        for dequantize in (True, False):
            model, report = load_model_and_report(made, dtype="float32", dequantize=dequantize)
            assert relative_error(logits_of(model, make_inputs()), expected) < TOLERANCE, recipe
            assert set(report.schemes.values()) == schemes
        assert load(str(made))[1].image_processor is not None


def test_what_mlx_tools_write_is_the_same_model(tmp_path: Path) -> None:
    config = make_config()
    ours = write_qwen3_5(tmp_path / "ours")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text(json.dumps(config))
    arrays = dict(as_mlx(name, value) for name, value in make_weights(config).items())
    contiguous = {name: mx.array(np.ascontiguousarray(value)) for name, value in arrays.items()}
    mx.save_safetensors(str(theirs / "model.safetensors"), contiguous)
    first, second = (
        logits_of(load_model(f, dtype="float32"), make_inputs()) for f in (ours, theirs)
    )
    np.testing.assert_array_equal(first, second)


def test_layers_for_drafts_are_left_out(tmp_path: Path) -> None:
    folder = write_qwen3_5(tmp_path / "model")
    expected = logits_of(load_model(folder), make_inputs())
    arrays = dict(mx.load(str(folder / "model.safetensors")))
    for name in ("mtp.fc.weight", "mtp.layers.0.input_layernorm.weight"):
        arrays[name] = mx.ones((3,))
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    np.testing.assert_array_equal(logits_of(load_model(folder), make_inputs()), expected)
    arrays["model.language_model.layers.0.linear_attn.extra"] = mx.ones((3,))
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    with pytest.raises(VlmkitError, match=r"1 superfluous \(model.language_model.*extra"):
        load_model(folder)


def test_decays_and_states_keep_their_precision(tmp_path: Path) -> None:
    model = load_model(write_qwen3_5(tmp_path / "model"), dtype="bfloat16")
    kept = [path for path, x in tree_flatten(model.parameters()) if x.dtype == mx.float32]  # type: ignore[attr-defined]
    assert kept == [f"language.layers.{layer}.linear_attn.A_log" for layer in range(3)]
    assert model.dtype == mx.bfloat16
    window, memory = empty_cache(model, 2).layers[0]
    assert (window.dtype, window.shape) == (mx.bfloat16, (2, 3, 128))
    assert (memory.dtype, memory.shape) == (mx.float32, (2, 4, 16, 16))
    logits = logits_of(model, make_inputs())
    exact = logits_of(load_model(tmp_path / "model", dtype="float32"), make_inputs())
    assert np.corrcoef(logits.reshape(-1), exact.reshape(-1))[0, 1] > 0.99


def test_sounds_are_refused(tmp_path: Path) -> None:
    model = load_model(write_qwen3_5(tmp_path / "model"))
    image = make_inputs().media[0]
    with pytest.raises(VlmkitError, match="qwen3_5 takes no audio; leave it out"):
        model.encode([Media.of("audio", image.data, image.shape, image.span)])


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_5"])
def test_what_mlx_lm_converts_is_a_text_model(model_type: str, tmp_path: Path) -> None:
    folder = write_qwen3_5(tmp_path / "model")
    config = {**make_config()["text_config"], "model_type": model_type, "image_token_id": 631}
    (folder / "config.json").write_text(json.dumps(config))
    assert find_family(config) is None
    assert find_family({**config, "vision_config": {}}) is not None
    processor = load_processor(folder)
    assert processor.image_token_id is None
    with pytest.raises(VlmkitError, match="takes no images"):
        processor.process_images([])

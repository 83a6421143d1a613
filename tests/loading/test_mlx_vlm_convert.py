"""Checkpoints that mlx-vlm's convert wrote: our logits are mlx-vlm's."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.loading.checkpoints import logits_of, make_inputs, relative_error
from tests.loading.mlx_vlm_convert import GOLDENS, RECIPES, convert, mlx_vlm_logits, write_source
from vlmkit.loading import Scheme, load_model, load_model_and_report

TOLERANCE = 1e-3
FAMILIES = ("qwen2_vl", "qwen2_5_vl")
SCHEMES = {
    "unquantized": set(),
    "affine4": {Scheme(64, 4, "affine")},
    "affine8": {Scheme(32, 8, "affine")},
    "mxfp4": {Scheme(32, 4, "mxfp4")},
    "mixed": {Scheme(64, 4, "affine"), Scheme(64, 8, "affine")},
}


@pytest.mark.parametrize("dequantize", [None, False], ids=["default", "packed"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_golden_logits(recipe: str, dequantize: bool | None) -> None:
    folder = GOLDENS / recipe
    model, report = load_model_and_report(folder, dtype="float32", dequantize=dequantize)
    logits = logits_of(model, make_inputs())
    assert relative_error(logits, np.load(folder / "logits.npy")) < TOLERANCE
    assert set(report.schemes.values()) == SCHEMES[recipe]
    if dequantize is False:
        assert not report.dequantized


def test_packed_weights_take_less_memory() -> None:
    sizes = {
        dequantize: load_model_and_report(GOLDENS / "affine4", dequantize=dequantize)[1].num_bytes
        for dequantize in (True, False)
    }
    assert sizes[False] < 0.5 * sizes[True]


@pytest.mark.mlx_vlm
@pytest.mark.torch
@pytest.mark.parametrize("model_type", FAMILIES)
def test_live_logits(model_type: str, tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", model_type)
    for recipe in RECIPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
            made = convert(source, tmp_path / recipe, recipe)
            expected = mlx_vlm_logits(made)
        for dequantize in (True, False):
            model = load_model(made, dtype="float32", dequantize=dequantize)
            error = relative_error(logits_of(model, make_inputs()), expected)
            assert error < TOLERANCE, (recipe, dequantize)

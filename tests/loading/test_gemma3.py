"""Checkpoints of Gemma 3 in every layout: our logits are transformers' and mlx-vlm's."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.loading.checkpoints import logits_of, relative_error
from tests.loading.gemma3_oracle import COLUMNS, GOLDEN, NUM_STEPS, TEXT, pictures, run
from tests.loading.mlx_vlm_convert import convert
from tests.processors.tiny_gemma3 import write_gemma3
from vlmkit import generate, load
from vlmkit.contracts.inputs import Inputs
from vlmkit.loading import load_model
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.preprocess.request import prepare

TOLERANCE = 1e-4
CONVERTED = 1e-3  # as for the other families
FAMILIES = ("gemma3",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma3(tmp_path_factory.mktemp("gemma3") / "hub")


def prepared(processor: Any) -> Inputs:
    return prepare(processor, TEXT, pictures(), config=PreprocessConfig())


def test_prompt_and_greedy_steps_are_those_of_transformers(folder: Path) -> None:
    model, processor = load(str(folder))
    expected, inputs = dict(np.load(GOLDEN)), prepared(processor)
    np.testing.assert_array_equal(inputs.token_ids, expected["prompt_ids"])
    found = logits_of(model, inputs)[:, COLUMNS]
    assert relative_error(found, expected["logits"]) < TOLERANCE
    result = generate(model, processor, TEXT, pictures(), max_tokens=NUM_STEPS, eos_tokens=[])
    assert list(result.token_ids) == expected["token_ids"].tolist()
    ids = np.concatenate([inputs.token_ids, expected["token_ids"]]).astype(np.int32)
    steps = logits_of(model, Inputs.of(ids[:-1], inputs.media))[len(inputs.token_ids) - 1 :]
    assert relative_error(steps[:, COLUMNS], expected["step_logits"]) < TOLERANCE


@pytest.mark.torch
def test_the_golden_file_is_what_transformers_computes(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        found = run(folder)
    for name, value in np.load(GOLDEN).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("shard", ["5GB", "100KB"])
def test_transformers_saves_it(shard: str, folder: Path, tmp_path: Path) -> None:
    from transformers import Gemma3ForConditionalGeneration

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        theirs: Any = Gemma3ForConditionalGeneration.from_pretrained(str(folder))
        theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (shard == "100KB")
    inputs = prepared(load(str(folder))[1])
    np.testing.assert_array_equal(
        logits_of(load_model(tmp_path, dtype="float32"), inputs),
        logits_of(load_model(folder), inputs),
    )


def test_names_of_transformers_and_of_mlx_are_the_same_model(folder: Path, tmp_path: Path) -> None:
    inputs = prepared(load(str(folder))[1])
    expected = logits_of(load_model(folder), inputs)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    patches = "vision_tower.vision_model.embeddings.patch_embedding.weight"
    layouts = {
        "mlx": {**weights, patches: mx.contiguous(weights[patches].transpose(0, 2, 3, 1))},
        "transformers": {
            f"model.{name.replace('language_model.model', 'language_model')}": value
            for name, value in weights.items()
        },
    }
    for name, arrays in layouts.items():
        made = tmp_path / name
        made.mkdir()
        shutil.copyfile(folder / "config.json", made / "config.json")
        mx.save_safetensors(str(made / "model.safetensors"), arrays)
        np.testing.assert_array_equal(logits_of(load_model(made), inputs), expected)


def test_an_own_head_is_read(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    head = mx.contiguous(2 * weights["language_model.model.embed_tokens.weight"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    arrays = {**weights, "language_model.lm_head.weight": head}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    inputs = Inputs.of(np.arange(9, dtype=np.int32), [])
    tied, own = (logits_of(load_model(one), inputs) for one in (folder, tmp_path))
    np.testing.assert_allclose(own, 2 * tied, rtol=1e-5, atol=1e-5)


@pytest.mark.mlx_vlm
@pytest.mark.torch
def test_live_logits_and_features_of_converted_checkpoints(tmp_path: Path) -> None:
    from mlx_vlm.utils import load_model as load_theirs

    source = write_gemma3(tmp_path / "source", dtype=mx.bfloat16)
    text = Inputs.of(np.arange(40, dtype=np.int32) * 5, [])
    for recipe in ("unquantized", "affine4", "affine8"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
            made = convert(source, tmp_path / recipe, recipe)
            theirs: Any = load_theirs(made)
        theirs.set_dtype(mx.float32)
        expected = np.array(theirs.language_model(mx.array(text.token_ids)[None]).logits[0])
        media = prepared(load(str(made))[1]).media
        pixels = np.stack([_image(medium.data) for medium in media])
        hidden = theirs.vision_tower(mx.array(pixels), output_hidden_states=True)[0]
        seen = np.array(theirs.multi_modal_projector(hidden))
        for dequantize in (True, False):
            # mlx-vlm lets every token of a prompt with images see every other.
            model: Any = load_model(made, dtype="float32", dequantize=dequantize)
            assert relative_error(logits_of(model, text), expected) < CONVERTED, recipe
            for one, other in zip(model.encode(media), seen, strict=True):
                assert relative_error(np.array(one.embedded), other) < CONVERTED, recipe


def _image(patches: np.ndarray) -> np.ndarray:
    """Put patches together to an image ``[24, 24, 3]``."""
    parts = patches.reshape(3, 3, 2, 2, 3, 4, 4).transpose(0, 2, 5, 1, 3, 6, 4)
    return np.ascontiguousarray(parts.reshape(24, 24, 3))

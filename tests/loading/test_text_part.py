"""Checkpoints that see, of families that only mlx-lm has: their text part runs, as is said."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from tests.loading.checkpoints import logits_of
from tests.loading.test_text import CONFIG
from tests.loading.three_ways import TEMPLATE, complete, edit, refusal, runs
from vlmkit import batch_generate, generate, load
from vlmkit.cli.main import main
from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.loading import load_model
from vlmkit.models.lm_build import build_lm
from vlmkit.passes.embed import embed_prompts
from vlmkit.processors import load_processor
from vlmkit.prompt_utils import apply_chat_template

TEXT = {key: value for key, value in CONFIG.items() if key != "model_type"}
VISION = {"depth": 1, "hidden_size": 16, "patch_size": 16, "spatial_merge_size": 2}
NOTE = "checkpoint runs: it takes no images"
CONFIGS: dict[str, dict[str, Any]] = {
    "nested": {
        "model_type": "pixtral",
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": VISION,
    },
    "named": {"model_type": "qwen3_vl", **TEXT},  # nothing but the model_type tells that it sees
}


def write(folder: Path, config: dict[str, Any]) -> Path:
    """A checkpoint with vision weights that nobody has a model for."""
    complete(folder)
    values = {"model_type": "qwen3_vl", "image_token_id": 60, **config}
    rng = np.random.default_rng(0)
    weights = {
        path: mx.array(rng.standard_normal(value.shape, dtype=np.float32) / 8)
        for path, value in tree_flatten(build_lm(values).parameters())
    }
    if "vision_config" in values:
        weights["vision_tower.patch_conv.weight"] = mx.zeros((16, 3, 16, 16))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(values))
    edit(folder / "preprocessor_config.json", image_processor_type="Qwen3VLImageProcessorFast")
    return folder


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "model", CONFIGS[request.param])


def test_it_is_said_at_load_and_wherever_an_image_comes(folder: Path) -> None:
    with pytest.warns(VlmkitWarning, match=NOTE) as said:
        model, processor = load(str(folder))
    assert len(said) == 1
    assert generate(model, processor, "w1 w2", max_tokens=2).generation_tokens == 2
    assert "w1" in apply_chat_template(processor, model.config, "w1")
    image = Image.new("RGB", (64, 64))
    parts = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "w1"}]}]
    attempts = {
        "generate": lambda: generate(model, processor, "w1", image=image),
        "batch": lambda: batch_generate(model, processor, prompts=["w1"], images=[image]),
        "template": lambda: apply_chat_template(processor, model.config, "w1", num_images=1),
        "parts": lambda: apply_chat_template(processor, model.config, parts),
        "process": lambda: processor.process_images([image]),
    }
    for name, attempt in attempts.items():
        with pytest.raises(VlmkitError, match=NOTE) as caught:
            attempt()
        assert "\n" not in str(caught.value), name
        assert "text-only" not in str(caught.value), name
    medium = Media.of("image", np.zeros((4, 3), np.float32), (1, 2, 2), (0, 1))
    with pytest.raises(VlmkitError, match=NOTE):
        embed_prompts(model, [Inputs.of(np.array([1], np.int32), [medium])])


def test_the_command_line_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = runs(folder, capsys)
    assert err.startswith(f"vlmkit: warning: {folder}: only the text part of this ")
    assert NOTE in err
    assert err.count("\n") == 1
    assert main(["describe", "--model", str(folder)]) == 0
    assert "\nnote: only the text part of this" in capsys.readouterr().out
    assert main(["describe", "--model", str(folder), "--json"]) == 0
    assert NOTE in json.loads(capsys.readouterr().out)["notes"][0]
    assert main(["describe"]) == 0
    assert "note:" not in capsys.readouterr().out
    assert main(["models"]) == 0
    assert "only the text part runs" in capsys.readouterr().out


def test_text_only_checkpoints_are_not_said_to_see(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {**TEXT, "model_type": "qwen3"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, processor = load(str(folder))
    with pytest.raises(VlmkitError, match="the qwen3 family takes no images"):
        generate(model, processor, "w1", image=Image.new("RGB", (64, 64)))


def test_the_text_part_gives_the_logits_of_its_text_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", CONFIGS["nested"])
    with pytest.warns(VlmkitWarning, match=NOTE):
        model = load_model(folder, dtype="float32")
    text = tmp_path / "text"
    text.mkdir()
    weights = {
        name.removeprefix("language_model."): value
        for name, value in mx.load(str(folder / "model.safetensors")).items()
        if name.startswith("language_model.")
    }
    mx.save_safetensors(str(text / "model.safetensors"), weights)
    (text / "config.json").write_text(json.dumps({**TEXT, "model_type": "llama"}))
    inputs = Inputs.of(np.array([3, 1, 4], np.int32))
    expected = logits_of(load_model(text, dtype="float32"), inputs)
    assert np.array_equal(logits_of(model, inputs), expected)


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (_without(TEXT, "head_dim"), "head_dim is missing"),
        ({"text_config": _without(CONFIG, "head_dim")}, "text_config.head_dim is missing"),
        ({**TEXT, "model_type": "qwen3", "head_dim": None}, "head_dim is None"),
        ({**TEXT, "model_type": "qwen3", "head_dim": "16"}, "head_dim is '16'"),
        ({**TEXT, "model_type": "qwen3", "head_dim": 0}, "head_dim is 0"),
        ({**TEXT, "model_type": "qwen3", "num_hidden_layers": 10**9}, "num_hidden_layers is 100"),
        ({**TEXT, "model_type": "qwen3", "num_hidden_layers": [2, 3]}, "num_hidden_layers is [2"),
        ({**TEXT, "model_type": "llama", "num_attention_heads": 0}, "num_attention_heads is 0"),
        ({**TEXT, "model_type": "qwen3", "vocab_size": 2**33}, "vocab_size is 8589934592"),
        ({**TEXT, "model_type": "qwen3", "rope_scaling": {"type": "x"}}, "head_dim, rope_theta"),
        ({**TEXT, "model_type": "qwen3", "rope_theta": "many"}, "rope_theta is 'many'"),
        ({**TEXT, "model_type": "llama", "layer_types": [1]}, "layer_types"),
        ({**TEXT, "architectures": 5}, "architectures is 5"),
        ({**TEXT, "architectures": [[]]}, "architectures is [[]]"),
        ({**TEXT, "model_type": "base"}, "model_type 'base' is not supported"),
        ({**TEXT, "model_type": ""}, "model_type '' is not supported"),
        ({**TEXT, "model_file": 5}, "model_file is 5"),
        ({"text_config": 5}, "text_config is 5"),
    ],
)
def test_what_cannot_be_built_is_named(
    config: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "model", {**TEXT, "model_type": "qwen3"})
    values = {"model_type": "qwen3_vl", **config}
    (folder / "config.json").write_text(json.dumps(values))
    message = refusal(folder, capsys)
    assert f"config.json: {said}" in message


def test_own_code_that_fails_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {**TEXT, "model_file": "own.py"})
    (folder / "own.py").write_text("raise RuntimeError('not\\ntoday')\n")
    with pytest.raises(VlmkitError) as caught:
        load_model(folder, trust_remote_code=True)
    said = "config.json: model_file 'own.py' cannot build the model (RuntimeError: not today)"
    assert str(caught.value) == said


def test_the_processor_alone_knows_too(folder: Path) -> None:
    for backend in ("native", "transformers"):
        processor = load_processor(folder, backend=backend)
        assert processor.image_token_id is None
        assert processor.is_text_part
        assert processor.chat_template == TEMPLATE


def test_the_text_that_mlx_lm_kept_of_a_family_runs(tmp_path: Path) -> None:
    folder = complete(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    weights = {
        f"language_model.{name}": value
        for name, value in mx.load(str(folder / "model.safetensors")).items()
        if not name.startswith("visual.")
    }
    whole = load_model(folder, dtype="float32")
    inputs = Inputs.of(np.array([3, 1, 4], np.int32))
    expected = logits_of(whole, inputs)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    del config["vision_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(VlmkitWarning, match="only the text part of this qwen2_vl checkpoint runs"):
        model, processor = load(str(folder), dtype="float32")
    np.testing.assert_allclose(logits_of(model, inputs), expected, atol=1e-4)
    with pytest.raises(VlmkitError, match="takes no images"):
        generate(model, processor, "w1", image=Image.new("RGB", (64, 64)))

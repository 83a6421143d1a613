"""Small checkpoints of Qwen3.5 and its kin, complete: random weights, the embedded tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from tests.models.tiny import stored
from tests.models.tiny_configs import qwen3_5, qwen3_5_moe, qwen3_vl, qwen3_vl_moe
from tests.processors.tiny import change_json, copy_shapes
from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.models.families import find_family

IDS = {
    "image_token_id": 631,
    "video_token_id": 632,
    "vision_start_token_id": 628,
    "vision_end_token_id": 629,
    "eos_token_id": 627,
}
TEXT = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "bos_token_id": 625,
    "eos_token_id": 627,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
FAMILIES: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any]]] = {
    "qwen3_5": (qwen3_5, {}),
    "qwen3_5_moe": (
        qwen3_5_moe,
        {"moe_intermediate_size": 64, "shared_expert_intermediate_size": 64},
    ),
    "qwen3_vl": (qwen3_vl, {"num_hidden_layers": 3}),
    "qwen3_vl_moe": (qwen3_vl_moe, {"moe_intermediate_size": 96, "num_hidden_layers": 2}),
}
VISION = {"out_hidden_size": 64}
# As published: the class says how, the mean and the deviation are 0.5.
IMAGES = {
    "size": {"longest_edge": 2304, "shortest_edge": 256},
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


def make_config(**text: Any) -> dict[str, Any]:
    """Return the config.json, with the ids of the embedded tokenizer."""
    return qwen3_5(vision=VISION, **{**TEXT, **text}) | IDS


def make_config_of(family: str) -> dict[str, Any]:
    """Return the config.json of another family, with the ids of the embedded tokenizer."""
    make, experts = FAMILIES[family]
    return make(vision=VISION, **{**TEXT, **experts}) | IDS


def hub_name(path: str) -> str:
    """Return the name that transformers gives to one of our parameters."""
    for old, new in (
        ("language.lm_head", "lm_head"),
        ("language.", "model.language_model."),
        ("vision.", "model.visual."),
        (".patch_embed.", ".patch_embed.proj."),
        (".merger.ln_q.", ".merger.norm."),
        (".mlp.fc", ".mlp.linear_fc"),
        (".merger.fc", ".merger.linear_fc"),
    ):
        path = path.replace(old, new)
    if ".deepstack." in path:
        path = path.replace(".deepstack.", ".deepstack_merger_list.").replace(".ln_q.", ".norm.")
        path = path.replace(".fc", ".linear_fc")
    return path


def make_weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return random weights in the names and layouts of transformers."""
    return _with_stacks(make_parts(config), config["model_type"])


def make_parts(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the same, but the experts' projections as we have them."""
    family = find_family(config)
    assert family is not None
    parsed = family.parse(config)
    vision, weights = parsed.vision_config, {}
    for path, value in tree_flatten(family.build(parsed).parameters()):
        array = stored(family, parsed, path, value.shape)
        if path == "vision.patch_embed.weight":
            time, size = vision.temporal_patch_size, vision.patch_size
            array = array.reshape(-1, vision.in_channels, time, size, size)
        if path.endswith("conv1d.weight"):
            array = array[:, None]
        weights[hub_name(path)] = array
    return weights


def _with_stacks(weights: Mapping[str, np.ndarray], model_type: str) -> dict[str, np.ndarray]:
    """Name and join the weights of experts as transformers does for a family."""
    result = {}
    axes = (0, 2, 1) if model_type == "qwen3_vl_moe" else (0, 1, 2)
    for name, array in weights.items():
        layer, _, part = name.partition(".switch_mlp.")
        if part == "gate_proj.weight":
            up = weights[f"{layer}.switch_mlp.up_proj.weight"]
            result[f"{layer}.experts.gate_up_proj"] = np.concatenate([array, up], axis=1).transpose(
                axes
            )
        elif part == "down_proj.weight":
            result[f"{layer}.experts.down_proj"] = array.transpose(axes)
        elif not part:
            result[name] = array
    return result


def as_mlx(name: str, array: np.ndarray, family: str = "qwen3_5") -> tuple[str, np.ndarray]:
    """Return a weight of transformers as MLX tools write it."""
    if "3_5" in family and name.endswith(
        ("layernorm.weight", "q_norm.weight", "k_norm.weight", "language_model.norm.weight")
    ):
        array = 1 + array
    if name.endswith("conv1d.weight"):
        array = np.moveaxis(array, 2, 1)
    if name.endswith("patch_embed.proj.weight"):
        array = np.moveaxis(array, 1, -1)
    return mlx_name(name), array


def mlx_name(name: str) -> str:
    """Return the name that MLX tools give to a weight of transformers."""
    for old, new in (
        ("model.language_model.", "language_model.model."),
        ("model.visual.", "vision_tower."),
        ("lm_head", "language_model.lm_head"),
    ):
        name = name.replace(old, new)
    return name


def make_inputs() -> Inputs:
    """A prompt of 21 tokens with one image of 6 by 8 patches."""
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((48, 96)).astype(np.float32)
    ids = [1, 2, 3, 628, *[631] * 12, 629, 4, 5, 6, 7]
    return Inputs.of(np.array(ids, np.int32), [Media.of("image", patches, (1, 6, 8), (4, 16))])


def write_qwen3_5(folder: Path, *, dtype: mx.Dtype = mx.float32, **text: Any) -> Path:
    """Write the checkpoint: weights, config, tokenizer, chat template and image settings."""
    return write_checkpoint(folder, make_config(**text), dtype=dtype)


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], *, dtype: mx.Dtype = mx.float32
) -> Path:
    """Write a checkpoint of any of these families."""
    copy_shapes(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    change_json(folder / "generation_config.json", eos_token_id=627)
    arrays = {name: mx.array(value).astype(dtype) for name, value in make_weights(config).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    return folder

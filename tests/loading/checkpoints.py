"""Small random checkpoints in every dialect, and the logits that a model gives for one prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import ImageGrid, Inputs, Media
from vlmkit.contracts.interface import Model, Span
from vlmkit.passes.embed import embed_prompts

IMAGE_ID = 60
PATCH, CHANNELS, TIME = 4, 3, 2
DIALECTS = ("hub", "transformers5", "mlx")

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}
VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "depth": 1,
        "embed_dim": 16,
        "hidden_size": 64,
        "mlp_ratio": 2,
        "num_heads": 2,
        "hidden_act": "quick_gelu",
    },
    "qwen2_5_vl": {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": 64,
        "num_heads": 2,
        "hidden_act": "silu",
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
}
COMMON_VISION = {
    "in_channels": CHANNELS,
    "in_chans": CHANNELS,
    "patch_size": PATCH,
    "spatial_patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": TIME,
}
IDS = {
    "image_token_id": IMAGE_ID,
    "video_token_id": 61,
    "vision_start_token_id": 58,
    "vision_end_token_id": 59,
    "eos_token_id": 57,
    "bos_token_id": 56,
}


def make_config(
    model_type: str = "qwen2_vl", *, nested: bool = False, tied: bool = False
) -> dict[str, Any]:
    """A config.json: flat as on the hub, or with text_config as transformers 5 writes it."""
    vision = {"model_type": model_type, **COMMON_VISION, **VISION[model_type]}
    head = {"model_type": model_type, "vision_config": vision, **IDS}
    text = {**TEXT, "tie_word_embeddings": tied}
    if not nested:
        return {**head, **text}
    scaling = {
        **text.pop("rope_scaling"),
        "rope_type": "default",
        "rope_theta": text.pop("rope_theta"),
    }
    text |= {"model_type": f"{model_type}_text", "rope_parameters": scaling}
    return {**head, "text_config": text, "tie_word_embeddings": tied}


def random_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights in the hub's names and layouts; matrices keep the scale of what they multiply."""
    text = config.get("text_config", config)
    rng = np.random.default_rng(seed)
    shapes = {**_text_shapes(text), **_vision_shapes(config["vision_config"])}
    if not text["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (text["vocab_size"], text["hidden_size"])
    weights = {}
    for name, shape in shapes.items():
        value = rng.standard_normal(shape)
        if len(shape) == 1:
            value = 0.1 * value + (not name.endswith("bias"))
        elif "embed_tokens" not in name:
            value = value / np.sqrt(np.prod(shape[1:]))
        weights[name] = value.astype(np.float32)
    return weights


def _text_shapes(text: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    kv = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (text["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(text["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (rows, hidden)
            shapes[f"{prefix}.self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
    return shapes


def _vision_shapes(vision: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    is_25 = vision["model_type"] == "qwen2_5_vl"
    width = vision["hidden_size"] if is_25 else vision["embed_dim"]
    out = vision["out_hidden_size"] if is_25 else vision["hidden_size"]
    inner = vision["intermediate_size"] if is_25 else int(width * vision["mlp_ratio"])
    linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    if is_25:
        linear |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width)}
        linear |= {"mlp.down_proj": (width, inner)}
    else:
        linear |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    norms = {"norm1": (width,), "norm2": (width,)}
    merged = 4 * width
    shapes: dict[str, tuple[int, ...]] = {
        "visual.patch_embed.proj.weight": (width, CHANNELS, TIME, PATCH, PATCH),
        "visual.merger.ln_q.weight": (width,),
        "visual.merger.mlp.0.weight": (merged, merged),
        "visual.merger.mlp.0.bias": (merged,),
        "visual.merger.mlp.2.weight": (out, merged),
        "visual.merger.mlp.2.bias": (out,),
    }
    for block in range(vision["depth"]):
        for name, shape in (linear | norms).items():
            shapes[f"visual.blocks.{block}.{name}.weight"] = shape
            if name in linear or not is_25:
                shapes[f"visual.blocks.{block}.{name}.bias"] = shape[:1]
    if not is_25:
        shapes["visual.merger.ln_q.bias"] = (width,)
    return shapes


def in_dialect(name: str, dialect: str) -> str:
    """A hub name as another tool writes it."""
    prefixes = {
        "hub": {},
        "transformers5": {"model.": "model.language_model.", "visual.": "model.visual."},
        "mlx": {
            "model.": "language_model.model.",
            "lm_head": "language_model.lm_head",
            "visual.": "vision_tower.",
        },
    }
    for old, new in prefixes[dialect].items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any] | mx.array],
    *,
    dialect: str = "hub",
    files: Sequence[str] = ("model.safetensors",),
    index: bool | None = None,
    dtype: mx.Dtype = mx.float32,
) -> Path:
    """Write a checkpoint folder; ``weights`` are in the hub's names and layouts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    arrays = {}
    for name, value in weights.items():
        array = mx.array(value)
        if dialect == "mlx" and name == "visual.patch_embed.proj.weight":
            array = mx.contiguous(array.transpose(0, 2, 3, 4, 1))
        is_float = mx.issubdtype(array.dtype, mx.floating)
        arrays[in_dialect(name, dialect)] = array.astype(dtype) if is_float else array
    names = sorted(arrays)
    per_file = -(-len(names) // len(files))
    weight_map = {}
    for number, file in enumerate(files):
        part = names[number * per_file : (number + 1) * per_file]
        mx.save_safetensors(str(folder / file), {name: arrays[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    if index if index is not None else len(files) > 1:
        contents = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(contents))
    return folder


def make_inputs(seed: int = 0) -> Inputs:
    """A prompt of 19 tokens with one image of 6 by 8 patches."""
    rng = np.random.default_rng(seed)
    grid = ImageGrid(1, 6, 8)
    words = rng.integers(0, 56, 5).tolist()
    ids = [*words[:3], 58, *[IMAGE_ID] * 12, 59, *words[3:]]
    patches = rng.standard_normal((48, CHANNELS * TIME * PATCH * PATCH)).astype(np.float32)
    return Inputs.of(np.array(ids, np.int32), [Media.of("image", patches, grid, (4, 16))])


def logits_of(model: Model, inputs: Inputs) -> NDArray[np.float32]:
    """The logits at every position of one prompt, ``[T, V]``, through a dense cache."""
    piece, lengths, _ = embed_prompts(model, [inputs])
    cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    hidden, _, _ = model.forward(piece, cache, Span((0,), lengths, lengths[0]))
    return np.array(model.logits(hidden)[0].astype(mx.float32))


def relative_error(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, relative to the spread of the expected logits."""
    return float(np.abs(logits - expected).max() / expected.std())

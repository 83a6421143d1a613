"""Small random checkpoints and prompts, the same on every machine, for oracle and test alike."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.contracts.interface import Cache, Model, Span
from vlmkit.models.config import ModelConfig
from vlmkit.models.families import Family, find_family
from vlmkit.models.vlm import VisionLanguageModel

VOCABULARY = 120
IMAGE, VIDEO, START, END = 100, 101, 102, 103
NUM_STEPS = 32

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
    "use_sliding_window": False,
    "sliding_window": 64,
    "max_window_layers": 3,
    "bos_token_id": 104,
    "eos_token_id": 105,
}
IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
VISION_2 = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": 48,
    "num_heads": 2,
    "mlp_ratio": 2,
    "in_channels": 3,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
VISION_2_5 = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_heads": 2,
    "in_channels": 3,
    "out_hidden_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 16,
    "fullatt_block_indexes": [1],
}
TEXT_3_5 = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [3, 3, 2],
        "mrope_interleaved": True,
    },
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
    "bos_token_id": 104,
    "eos_token_id": 105,
}
EXPERTS_3_5 = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 28,
}
TEXT_3 = {
    "num_hidden_layers": 3,
    "rope_parameters": None,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "default",
        "mrope_section": [6, 5, 5],
        "mrope_interleaved": True,
    },
}
EXPERTS_3 = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
}
DEEPSTACK = {"depth": 4, "deepstack_visual_indexes": [0, 2]}
VISION_3_5 = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_heads": 2,
    "in_channels": 3,
    "out_hidden_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 25,
    "hidden_act": "gelu_pytorch_tanh",
}


def qwen2_vl(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen2-VL, in the flat layout."""
    config = {"model_type": "qwen2_vl", "tie_word_embeddings": True, **IDS, **TEXT, **text}
    return config | {"vision_config": VISION_2 | (vision or {})}


def qwen2_5_vl(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen2.5-VL, in the flat layout."""
    config = {"model_type": "qwen2_5_vl", "tie_word_embeddings": False, **IDS, **TEXT, **text}
    return config | {"vision_config": VISION_2_5 | (vision or {})}


def qwen3_5(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3.5, which there is in the nested layout only."""
    text_config = {"model_type": "qwen3_5_text", **TEXT_3_5, **text}
    head = {"model_type": "qwen3_5", **IDS}
    head["tie_word_embeddings"] = text_config.pop("tie_word_embeddings")
    return head | {"text_config": text_config, "vision_config": VISION_3_5 | (vision or {})}


def qwen3_5_moe(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3.5 with experts."""
    config = qwen3_5(vision=vision, **{**EXPERTS_3_5, **text})
    config["text_config"].pop("intermediate_size")
    config["text_config"]["model_type"] = "qwen3_5_moe_text"
    return config | {"model_type": "qwen3_5_moe"}


def qwen3_vl(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3-VL, which there is in the nested layout only."""
    config = qwen3_5(vision={**DEEPSTACK, **(vision or {})}, **{**TEXT_3, **text})
    text_config = {key: value for key, value in config["text_config"].items() if value is not None}
    config["text_config"] = {**text_config, "model_type": "qwen3_vl_text"}
    return config | {"model_type": "qwen3_vl"}


def qwen3_vl_moe(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3-VL with experts in some layers."""
    config = qwen3_vl(vision=vision, **{**EXPERTS_3, **text})
    config["text_config"]["model_type"] = "qwen3_vl_moe_text"
    return config | {"model_type": "qwen3_vl_moe"}


def nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return the same config as transformers 5 writes it."""
    if "text_config" in config:
        return config
    top = {key: config[key] for key in ("model_type", "tie_word_embeddings", *IDS, "vision_config")}
    text = {key: value for key, value in config.items() if key not in top}
    theta = text.pop("rope_theta")
    scaling = dict(text.pop("rope_scaling"))
    scaling.pop("type")
    text["rope_parameters"] = {**scaling, "rope_type": "default", "rope_theta": theta}
    return {**top, "text_config": text}


def tensor(path: str, shape: Sequence[int]) -> np.ndarray:
    """Return the weights of one of our parameter paths: numbers that depend on the path alone.

    The scale keeps activations near one in every layer, so that logits differ visibly, and the
    state of a delta net lasts for a few tokens.
    """
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    values = rng.standard_normal(tuple(shape), dtype=np.float32)
    if path.endswith(".bias"):
        return 0.2 * values
    if path.endswith(".A_log"):
        return values - 2
    if len(shape) == 1:
        return 1 + 0.2 * values
    if "embed_tokens" in path:
        return values
    inputs = shape[-1] if "switch_mlp" in path else np.prod(shape[1:])
    return values * np.float32(1.5 / np.sqrt(inputs))


def stored(family: Family, config: ModelConfig, path: str, shape: Sequence[int]) -> np.ndarray:
    """Return the weights of a path as a checkpoint of transformers has them."""
    layer, _, projection = path.partition(".experts.")
    if projection == "gate_up_proj":
        half = (shape[0], shape[1] // 2, shape[2])
        parts = (f"{layer}.switch_mlp.{part}_proj.weight" for part in ("gate", "up"))
        return np.concatenate([tensor(part, half) for part in parts], axis=1)
    if projection == "down_proj":
        return tensor(f"{layer}.switch_mlp.down_proj.weight", shape)
    values = tensor(path, shape)
    # Some families store how far a norm's factor is from one.
    is_offset = len(shape) == 1 and float(family.reshape("", path, mx.zeros(1), config)[0]) == 1
    return values - 1 if is_offset else values


def build(config: dict[str, Any]) -> VisionLanguageModel:
    """Return a model with the weights of :func:`tensor`."""
    family = find_family(config)
    assert family is not None
    model = family.build(family.parse(config))
    shapes = [(path, value.shape) for path, value in tree_flatten(model.parameters())]
    model.load_weights([(path, mx.array(tensor(path, shape))) for path, shape in shapes])
    return model


def prompt(config: dict[str, Any], grids: Sequence[tuple[int, int, int]], seed: int) -> Inputs:
    """Return text with images in between."""
    rng = np.random.default_rng(seed)
    vision = config["vision_config"]
    merge = vision["spatial_merge_size"] ** 2
    ids = list(rng.integers(0, IMAGE, rng.integers(3, 9)))
    for grid in grids:
        ids += [START, *[IMAGE] * (int(np.prod(grid)) // merge), END]
        ids += list(rng.integers(0, IMAGE, rng.integers(0, 7)))
    ids += list(rng.integers(0, IMAGE, 4))
    size = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    count = sum(int(np.prod(grid)) for grid in grids)
    patches = rng.standard_normal((count, size), dtype=np.float32) if grids else np.zeros((0, size))
    return with_images(ids, patches, grids, merge)


def with_images(
    ids: Sequence[int], patches: np.ndarray, grids: Sequence[tuple[int, int, int]], merge: int
) -> Inputs:
    """Return a prompt whose placeholders stand for images, in order."""
    media, start, free = [], 0, [i for i, one in enumerate(ids) if one in (IMAGE, VIDEO)]
    for grid in grids:
        count = int(np.prod(grid))
        first, free = free[0], free[count // merge :]
        kind = "video" if ids[first] == VIDEO else "image"
        span = (first, first + count // merge)
        media.append(Media.of(kind, patches[start : start + count], grid, span))
        start += count
    return Inputs.of(np.array(ids, np.int32), media)


def continuation(seed: int) -> np.ndarray:
    """Return the tokens that the decode steps are fed: int32 ``[NUM_STEPS]``."""
    return np.random.default_rng([seed, 7]).integers(0, IMAGE, NUM_STEPS).astype(np.int32)


class Case(NamedTuple):
    """A model and prompts whose logits the oracle knows."""

    config: dict[str, Any]
    prompts: dict[str, list[tuple[int, int, int]]]  # name -> grids


PROMPTS = {
    "text": [],
    "one_image": [(1, 6, 10)],
    "three_images": [(1, 4, 4), (1, 10, 6), (1, 6, 14)],
}
CASES = {
    "qwen2_vl": Case(qwen2_vl(), PROMPTS),
    "qwen2_5_vl": Case(qwen2_5_vl(), PROMPTS),
    "qwen3_vl": Case(qwen3_vl(), PROMPTS),
    "qwen3_vl_moe": Case(qwen3_vl_moe(), PROMPTS),
    "qwen3_5": Case(qwen3_5(), PROMPTS),
    "qwen3_5_moe": Case(qwen3_5_moe(), PROMPTS),
}


def seed_of(name: str) -> int:
    """Return the seed of a prompt."""
    return zlib.crc32(name.encode()) % 1000


def empty_cache(model: Model, batch: int) -> Cache:
    """Return a dense cache without tokens."""
    return build_cache(DenseConfig(), model.layer_specs, batch, model.dtype)


def prefill(
    model: Model, embeddings: Embeddings, cache: Cache, *, chunk: int | None = None
) -> tuple[mx.array, Cache]:
    """Run all prompt positions; return logits ``[B, T, V]`` and the cache."""
    width, outputs = embeddings.piece.hidden.shape[1], []
    for start in range(0, width, chunk or width):
        stop = min(start + (chunk or width), width)
        lengths = tuple(min(max(n - start, 0), stop - start) for n in embeddings.lengths)
        span = Span(cache.lengths, lengths, stop - start)
        hidden, _, cache = model.forward(embeddings.piece.slice(start, stop), cache, span)
        outputs.append(model.logits(hidden))
    return mx.concatenate(outputs, axis=1), cache


def decode(
    model: Model, cache: Cache, next_positions: Sequence[int], tokens: np.ndarray
) -> np.ndarray:
    """Feed tokens ``[B, N]`` one by one; return logits ``[B, N, V]``."""
    outputs, batch = [], len(next_positions)
    for step in range(tokens.shape[1]):
        positions = mx.array([[[p + step] for p in next_positions]], mx.int32)
        piece = Piece(model.embed_tokens(mx.array(tokens[:, step : step + 1])), positions)
        hidden, _, cache = model.forward(piece, cache, Span(cache.lengths, (1,) * batch, 1))
        outputs.append(model.logits(hidden))
    return np.array(mx.concatenate(outputs, axis=1))

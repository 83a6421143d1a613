"""Small random checkpoints and prompts, the same on every machine, for oracle and test alike."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from tests.models.tiny_configs import (
    END,
    IMAGE,
    START,
    VIDEO,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_5_moe,
    qwen3_vl,
    qwen3_vl_moe,
)
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.contracts.interface import Cache, Model, Span
from vlmkit.models.config import ModelConfig
from vlmkit.models.families import Family, find_family
from vlmkit.models.vlm import VisionLanguageModel

NUM_STEPS = 32


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

"""What a model family is, and the helpers that its data files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.errors import VlmkitError
from vlmkit.models.config import ModelConfig
from vlmkit.models.vlm import VisionLanguageModel


class Family(NamedTuple):
    """A model family as data and pure functions.

    ``rename`` maps a name of the checkpoint to our parameter path. It works on any name with the
    layer's prefix, so ``….weight``, ``….scales``, ``….biases`` and bare module paths (the
    per-layer overrides of a ``quantization`` section) all map. None means: known, not needed. A
    name that the family does not know comes back unchanged, and is no path of the model.

    ``reshape`` brings a tensor into the layout of our parameter; all but the patch embedding
    come back as they are.
    """

    name: str
    model_types: tuple[str, ...]  # of config.json
    parse: Callable[[Mapping[str, Any]], ModelConfig]  # contents of config.json -> our config
    build: Callable[[ModelConfig], VisionLanguageModel]  # random weights; load the real ones
    rename: Callable[[str, ModelConfig], str | None]
    reshape: Callable[[str, mx.array, ModelConfig], mx.array]  # (our path, tensor, config)


_PREFIXES = (
    # longest first: transformers 5, mlx-vlm, then the names on the hub
    ("model.language_model.", "language."),
    ("model.visual.", "vision."),
    ("language_model.model.", "language."),
    ("language_model.lm_head", "language.lm_head"),
    ("vision_tower.", "vision."),
    ("visual.", "vision."),
    ("lm_head", "language.lm_head"),
    ("model.", "language."),
)
_VISION_PARTS = (
    ("vision.patch_embed.proj", "vision.patch_embed"),
    ("vision.merger.mlp.0", "vision.merger.fc1"),
    ("vision.merger.mlp.2", "vision.merger.fc2"),
)
_NOT_NEEDED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "position_ids")


def rename_qwen(name: str, config: ModelConfig) -> str | None:
    """Map a Qwen2-VL weight name, in any of its three dialects, to our parameter path.

    Args:
        name: as stored in the checkpoint.
        config: tells whether the head is tied to the embedding.

    Returns:
        Our path; None for a tensor that is known and not needed.
    """
    if name.endswith(_NOT_NEEDED):
        return None
    path = _replace_prefix(name, _PREFIXES)
    if path.startswith("language.lm_head") and config.text_config.tie_word_embeddings:
        return None
    return _replace_prefix(path, _VISION_PARTS)


def _replace_prefix(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def reshape_qwen(path: str, tensor: mx.array, config: ModelConfig) -> mx.array:
    """Flatten the patch embedding's convolution kernel to ``[embed, channels * time * h * w]``.

    Checkpoints hold it as ``[embed, channels, time, h, w]`` (transformers) or channel-last,
    ``[embed, time, h, w, channels]`` (MLX); the shape decides.

    Args:
        path: our parameter path.
        tensor: the tensor as stored.
        config: gives the kernel's sizes.

    Raises:
        VlmkitError: the kernel has neither shape.
    """
    if path != "vision.patch_embed.weight" or tensor.ndim == 2:
        return tensor
    vision = config.vision_config
    channels, size = (
        vision.in_channels,
        (
            vision.temporal_patch_size,
            vision.patch_size,
            vision.patch_size,
        ),
    )
    if tensor.shape[1:] == (channels, *size):
        return tensor.reshape(tensor.shape[0], -1)
    if tensor.shape[1:] == (*size, channels):
        return tensor.transpose(0, 4, 1, 2, 3).reshape(tensor.shape[0], -1)
    raise VlmkitError(
        f"patch embedding has shape {tuple(tensor.shape)}; config.json: vision_config.patch_size, "
        "temporal_patch_size and in_channels ask for "
        f"{(vision.embed_dim, channels, *size)} or {(vision.embed_dim, *size, channels)}"
    )

"""What a model family is, and the helpers that its data files share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.errors import VlmkitError
from vlmkit.models.config import ModelConfig
from vlmkit.models.vlm import VisionLanguageModel

VERIFIED = ("logits", "quantized", "batch", "contrast", "search")
"""What is tested of a family: prompt and decode logits against transformers in float32; those of
checkpoints that mlx-vlm's convert quantized against mlx-vlm; batches, contrasted logits and
searches over pictures, each against runs of its own."""


class Family(NamedTuple):
    """A model family as data and pure functions.

    ``rename`` maps a name of the checkpoint to our parameter path. It works on any name with the
    layer's prefix, so ``….weight``, ``….scales``, ``….biases`` and bare module paths (the
    per-layer overrides of a ``quantization`` section) all map. None means: known, not needed. A
    name that the family does not know comes back unchanged, and is no path of the model.

    ``reshape`` brings a tensor into the layout of our parameter; most come back as they are. The
    name in the checkpoint tells which tool wrote it.

    ``arrange`` comes before both, where one tensor of a checkpoint is several of ours, or several
    are one; what it gives has names as a checkpoint could have them.
    """

    name: str
    model_types: tuple[str, ...]  # of config.json
    parse: Callable[[Mapping[str, Any]], ModelConfig]  # contents of config.json -> our config
    build: Callable[..., VisionLanguageModel]
    # (config, backend = the plain one): random weights; load the real ones
    rename: Callable[[str, ModelConfig], str | None]
    reshape: Callable[[str, str, mx.array, ModelConfig], mx.array]
    # (name in the checkpoint, our path, tensor, config)
    about: str  # what is special to it, in a few words
    takes: tuple[str, ...] = ("text", "image", "video")
    verified: tuple[str, ...] = VERIFIED
    is_cast: Callable[[str], bool] = lambda path: True  # False: a parameter keeps its own dtype
    arrange: Callable[[Mapping[str, mx.array], ModelConfig], Mapping[str, mx.array]] = (
        lambda arrays, config: arrays
    )
    senses: tuple[str, ...] = ("vision_config",)  # of config.json: without one it is a text model


_PREFIXES = (
    # longest first: transformers 5, mlx-vlm, then the names on the hub
    ("model.language_model.visual.", "vision."),
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
    ("vision.merger.norm", "vision.merger.ln_q"),
)
_DEEPSTACK = re.compile(r"^vision\.deepstack_merger_list\.(\d+)\.")
_LINEAR = re.compile(r"^(vision\..*)\.linear_fc")
_CENTRED = ("layernorm.weight", "q_norm.weight", "k_norm.weight", "language.norm.weight")
_DRAFTS = ".mtp."  # layers that guess further tokens
_NOT_NEEDED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "position_ids")


def rename_qwen(name: str, config: ModelConfig) -> str | None:
    """Map the weight name of a Qwen model, in any of its three dialects, to our parameter path.

    Args:
        name: as stored in the checkpoint.
        config: tells whether the head is tied to the embedding.

    Returns:
        Our path; None for a tensor that is known and not needed.
    """
    if name.endswith(_NOT_NEEDED) or _DRAFTS in f".{name}":
        return None
    path = replace_prefix(name, _PREFIXES)
    if path.startswith("language.lm_head") and config.text_config.tie_word_embeddings:
        return None
    if path.startswith("vision.deepstack_merger_list."):
        path = _DEEPSTACK.sub(r"vision.deepstack.\1.", path).replace(".norm", ".ln_q")
    return _LINEAR.sub(r"\1.fc", replace_prefix(path, _VISION_PARTS))


def replace_prefix(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    """Replace the first prefix that fits."""
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def reshape_qwen(name: str, path: str, tensor: mx.array, config: ModelConfig) -> mx.array:
    """Flatten kernels of convolutions: the patch embedding's and the delta nets'.

    Checkpoints hold the first as ``[embed, channels, time, h, w]`` (transformers) or channel-last,
    ``[embed, time, h, w, channels]`` (MLX), the others as ``[channels, 1, size]`` or
    ``[channels, size, 1]``; the shape decides.

    Args:
        name: as stored in the checkpoint.
        path: our parameter path.
        tensor: the tensor as stored.
        config: gives the kernel's sizes.

    Raises:
        VlmkitError: the kernel has neither shape.
    """
    if path.endswith("linear_attn.conv1d.weight"):
        return tensor.reshape(tensor.shape[0], -1) if 1 in tensor.shape[1:] else tensor
    if path != "vision.patch_embed.weight" or tensor.ndim == 2:
        return tensor
    vision = config.vision_config
    assert vision is not None
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


def reshape_centred(name: str, path: str, tensor: mx.array, config: ModelConfig) -> mx.array:
    """Do :func:`reshape_qwen` where checkpoints store how far from 1 the decoder's norms are.

    transformers multiplies by ``1 + w``; MLX tools, whose names begin with ``language_model.``,
    store that factor.
    """
    tensor = reshape_qwen(name, path, tensor, config)
    is_factor = name.startswith("language_model.") or not path.endswith(_CENTRED)
    if is_factor or not mx.issubdtype(tensor.dtype, mx.floating):
        return tensor
    return 1 + tensor.astype(mx.float32)

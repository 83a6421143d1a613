"""Qwen2-Audio: the encoder of Whisper, pairs of its frames averaged, before a Qwen2 decoder.

Reference: Chu et al. (2024), "Qwen2-Audio Technical Report", arXiv:2407.10759.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.models.audio import KERNEL, AudioConfig
from vlmkit.models.config import ACTIVATIONS, ModelConfig, parse_audio_config
from vlmkit.models.families.family import Family, replace_prefix
from vlmkit.models.text_reading import TextTraits
from vlmkit.models.vlm import VisionLanguageModel

_PREFIXES = (
    # transformers 5, then the names on the hub
    ("model.language_model.", "language."),
    ("model.audio_tower.", "audio."),
    ("model.multi_modal_projector.linear.", "audio.projector."),
    ("language_model.model.", "language."),
    ("language_model.lm_head", "language.lm_head"),
    ("audio_tower.", "audio."),
    ("multi_modal_projector.linear.", "audio.projector."),
    ("lm_head", "language.lm_head"),
)
_BLOCK = re.compile(r"^audio\.layers\.(\d+)\.")
_PARTS = (
    ("self_attn_layer_norm.", "norm1."),
    ("self_attn.", "attn."),
    ("final_layer_norm.", "norm2."),
)
_CONVOLUTIONS = ("audio.conv1.weight", "audio.conv2.weight")
_AUDIO_TOKEN = 151646


# What config.json on the hub leaves out is as in transformers' Qwen2.
_SIZES = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
_TEXT = TextTraits(rms_norm_eps=1e-6, rope_theta=10000.0, mrope_section=())


def _audio(section: Section, hidden_size: int) -> AudioConfig:
    return AudioConfig(
        depth=section.positive("encoder_layers", 32),
        embed_dim=section.positive("d_model", 1280),
        num_heads=section.positive("encoder_attention_heads", 20),
        intermediate_size=section.positive("encoder_ffn_dim", 5120),
        out_hidden_size=hidden_size,
        hidden_act=section.choice("activation_function", "gelu", ACTIVATIONS),
        num_mel_bins=section.positive("num_mel_bins", 128),
        max_positions=section.positive("max_source_positions", 1500),
    )


def _parse(config: Mapping[str, Any]) -> ModelConfig:
    key = "audio_token_index" if "audio_token_index" in config else "audio_token_id"
    return parse_audio_config(
        config, audio=_audio, text=_TEXT, token=(key, _AUDIO_TOKEN), defaults=_SIZES
    )


def rename(name: str, config: ModelConfig) -> str | None:
    """Map the name of a weight to our parameter path; None: known and not needed."""
    path = replace_prefix(name, _PREFIXES)
    if path.startswith("language.lm_head") and config.text_config.tie_word_embeddings:
        return None
    if path.startswith("audio.layer_norm."):
        return path.replace("layer_norm", "norm")
    if path.startswith("audio.embed_positions."):
        return path.replace("embed_positions", "pos_embed")
    if _BLOCK.match(path):
        path = _BLOCK.sub(r"audio.blocks.\1.", path)
        for old, new in _PARTS:
            path = path.replace(old, new)
    return path


def reshape(name: str, path: str, tensor: mx.array, config: ModelConfig) -> mx.array:
    """Flatten a convolution's kernel, ``[out, in, size]`` or in MLX's order ``[out, size, in]``.

    Raises:
        VlmkitError: the kernel has neither shape.
    """
    if path not in _CONVOLUTIONS or tensor.ndim == 2:
        return tensor
    audio = config.audio_config
    assert audio is not None
    width = audio.num_mel_bins if path == _CONVOLUTIONS[0] else audio.embed_dim
    if tensor.shape[1:] == (width, KERNEL):
        tensor = tensor.swapaxes(1, 2)
    if tensor.shape[1:] != (KERNEL, width):
        raise VlmkitError(
            f"weight {name!r} is {list(tensor.shape)}; config.json: audio_config asks for"
            f" {[audio.embed_dim, width, KERNEL]}"
        )
    return mx.contiguous(tensor.reshape(tensor.shape[0], -1))


QWEN2_AUDIO = Family(
    name="qwen2_audio",
    model_types=("qwen2_audio",),
    parse=_parse,
    build=VisionLanguageModel,
    rename=rename,
    reshape=reshape,
    about="the encoder of Whisper, pairs of frames averaged",
    takes=("text", "audio"),
    verified=("logits", "batch", "contrast", "search"),
    senses=("audio_config",),
)

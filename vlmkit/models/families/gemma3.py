"""Gemma 3: five layers with a sliding window to one without; the tokens of an image see each other.

Reference: Gemma Team (2025), "Gemma 3 Technical Report", arXiv:2503.19786; Zhai et al. (2023),
"SigLIP", arXiv:2303.15343 (vision encoder).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from vlmkit.declare.section import Section
from vlmkit.models.config import ModelConfig, TokenIds, VisionConfig, parse_config
from vlmkit.models.families.family import Family, reshape_qwen
from vlmkit.models.text_config import SLIDING
from vlmkit.models.text_reading import TextTraits
from vlmkit.models.vlm import VisionLanguageModel

_TEXT = TextTraits(
    head_dim=256,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    mrope_section=(),
    attention_bias=None,
    qk_norm=True,
    full_attention_interval=6,
    between=SLIDING,
    interval_key="sliding_window_pattern",
    hidden_act="gelu_pytorch_tanh",
    act_key="hidden_activation",
    output_norms=True,
    scales_embeddings=True,
    defaults=(
        ("vocab_size", 262208),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("sliding_window", 4096),
        ("query_pre_attn_scalar", 256),
        ("max_position_embeddings", 131072),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
    ),
)
_IDS = TokenIds(image=262144, video=262144, vision_start=255999, vision_end=256000)
_ID_KEYS = (
    ("image_token_id", "image_token_index"),
    ("vision_start_token_id", "boi_token_index"),
    ("vision_end_token_id", "eoi_token_index"),
)
_NAMES = (
    (r"^model\.", ""),
    (r"^language_model\.model\.", "language_model."),
    (r"^(language_model\.)?lm_head", "language.lm_head"),
    (r"^language_model\.", "language."),
    (r"^(embed_tokens|layers|norm)\b", r"language.\1"),
    (r"^vision_tower\.(vision_model\.)?", "vision."),
    (r"^vision\.embeddings\.patch_embedding", "vision.patch_embed"),
    (r"^vision\.embeddings\.position_embedding", "vision.pos_embed"),
    (r"^vision\.encoder\.layers\.", "vision.blocks."),
    (r"^(vision\.blocks\.\d+)\.layer_norm", r"\1.norm"),
    (r"^(vision\.blocks\.\d+)\.self_attn\.out_proj", r"\1.attn.proj"),
    (r"^(vision\.blocks\.\d+)\.self_attn\.", r"\1.attn."),
    (r"^vision\.post_layernorm", "vision.post_norm"),
    (r"^multi_modal_projector\.mm_input_projection_weight", "vision.merger.proj.weight"),
    (r"^multi_modal_projector\.mm_soft_emb_norm", "vision.merger.norm"),
)
_PART = re.compile(r"(.*vision_tower.*\.self_attn\.)q_proj(\.\w+)")
_OFFSET = ("layernorm.weight", "q_norm.weight", "k_norm.weight", "language.norm.weight")


def _vision(top: Section, section: Section) -> VisionConfig:
    size, patch = section.positive("image_size", 224), section.positive("patch_size", 16)
    tokens = top.positive("mm_tokens_per_image", 256)
    side, per_side = size // patch, math.isqrt(tokens)
    if per_side**2 != tokens or side % per_side:
        raise top.error("mm_tokens_per_image", f"is {tokens}; {side}x{side} patches do not pool so")
    text = top.inner("text_config")
    return VisionConfig(
        depth=section.positive("num_hidden_layers", 12),
        embed_dim=section.positive("hidden_size", 768),
        num_heads=section.positive("num_attention_heads", 12),
        intermediate_size=section.positive("intermediate_size", 3072),
        out_hidden_size=text.positive("hidden_size", 2304),
        hidden_act=section.choice("hidden_act", "gelu_pytorch_tanh", ("gelu_pytorch_tanh",)),
        norm="layer_norm",
        gated_mlp=False,
        in_channels=section.positive("num_channels", 3),
        patch_size=patch,
        temporal_patch_size=1,
        spatial_merge_size=side // per_side,
        rope_theta=None,
        norm_eps=section.number("layer_norm_eps", 1e-6),
        video_time_step=None,
        patch_bias=True,
        num_position_embeddings=side**2,
        merger="pool",
        final_norm=True,
    )


def _parse(config: Mapping[str, Any]) -> ModelConfig:
    ids = {ours: config.get(theirs) for ours, theirs in _ID_KEYS}
    given = {key: value for key, value in config.items() if value is not None}
    parsed = parse_config(
        {"tie_word_embeddings": True, **ids, **given},
        vision=lambda section: _vision(Section(config), section),
        text=_TEXT,
        ids=_IDS,
        bidirectional_media=True,
    )
    return dataclasses.replace(parsed, video_token_id=None)


def _rename(name: str, config: ModelConfig) -> str | None:
    path = name
    for old, new in _NAMES:
        path = re.sub(old, new, path)
    is_tied = config.text_config.tie_word_embeddings and path.startswith("language.lm_head")
    is_needed = not (is_tied or path.endswith("position_ids") or path.startswith("vision.head."))
    return path if is_needed else None


def _reshape(name: str, path: str, tensor: mx.array, config: ModelConfig) -> mx.array:
    """Bring a tensor into our layout; norms are stored as how far they are from 1."""
    if path == "vision.merger.proj.weight":
        return mx.contiguous(tensor.T)
    if path == "vision.patch_embed.weight" and tensor.ndim == 4:
        vision = config.vision_config
        assert vision is not None
        is_first = tensor.shape[1] == vision.in_channels
        return reshape_qwen(name, path, mx.expand_dims(tensor, 2 if is_first else 1), config)
    is_offset = path.endswith(_OFFSET) or path == "vision.merger.norm.weight"
    return 1 + tensor.astype(mx.float32) if is_offset else tensor


def _arrange(arrays: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Join the queries', keys' and values' matrices of the vision encoder."""
    result = dict(arrays)
    for name in arrays:
        if (found := _PART.fullmatch(name)) is not None:
            names = [f"{found[1]}{part}_proj{found[2]}" for part in "qkv"]
            if all(part in arrays for part in names):
                parts = [result.pop(part) for part in names]
                result[f"{found[1]}qkv{found[2]}"] = mx.concatenate(parts)
    return result


GEMMA3 = Family(
    name="gemma3",
    model_types=("gemma3",),
    parse=_parse,
    build=VisionLanguageModel,
    rename=_rename,
    reshape=_reshape,
    arrange=_arrange,
    about="sliding windows, five layers to one; the tokens of an image see each other",
    takes=("text", "image"),
)

"""Qwen2-VL: plain vision blocks with LayerNorm, full attention within each image.

Reference: Wang et al. (2024), "Qwen2-VL: Enhancing Vision-Language Model's Perception of the
World at Any Resolution", arXiv:2409.12191.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.declare.section import MAX_SIZE, Section
from vlmkit.models.config import ModelConfig, VisionConfig, parse_config, shared_vision
from vlmkit.models.families.family import Family, rename_qwen, reshape_qwen
from vlmkit.models.vlm import VisionLanguageModel


def _vision(section: Section) -> VisionConfig:
    embed_dim = section.positive("embed_dim")
    ratio = section.number("mlp_ratio", 4)
    if not 1 <= embed_dim * ratio <= MAX_SIZE:
        raise section.error("mlp_ratio", f"is {ratio:g}; embed_dim times it is no size")
    return VisionConfig(
        **shared_vision(section, default_act="quick_gelu"),
        embed_dim=embed_dim,
        out_hidden_size=section.positive("hidden_size"),
        intermediate_size=int(embed_dim * ratio),
        norm="layer_norm",
        gated_mlp=False,
    )


def _parse(config: Mapping[str, Any]) -> ModelConfig:
    return parse_config(config, vision=_vision)


QWEN2_VL = Family(
    name="qwen2_vl",
    model_types=("qwen2_vl",),
    parse=_parse,
    build=VisionLanguageModel,
    rename=rename_qwen,
    reshape=reshape_qwen,
    about="images of any size, M-RoPE",
)

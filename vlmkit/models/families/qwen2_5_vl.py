"""Qwen2.5-VL: gated vision blocks with RMSNorm; most of them attend within windows only.

Reference: Bai et al. (2025), "Qwen2.5-VL Technical Report", arXiv:2502.13923.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.declare.section import Section
from vlmkit.models.config import ModelConfig, VisionConfig, parse_config, shared_vision
from vlmkit.models.families.family import Family, rename_qwen, reshape_qwen
from vlmkit.models.vlm import VisionLanguageModel


def _vision(section: Section) -> VisionConfig:
    return VisionConfig(
        **shared_vision(section, default_act="silu"),
        embed_dim=section.positive("hidden_size"),
        out_hidden_size=section.positive("out_hidden_size"),
        intermediate_size=section.positive("intermediate_size"),
        norm="rms_norm",
        gated_mlp=True,
        window_size=section.positive("window_size", 112),
        full_attention_blocks=section.integers("fullatt_block_indexes", (7, 15, 23, 31)),
        video_time_step=section.positive("tokens_per_second", 4),
    )


def _parse(config: Mapping[str, Any]) -> ModelConfig:
    return parse_config(config, vision=_vision)


QWEN2_5_VL = Family(
    name="qwen2_5_vl",
    model_types=("qwen2_5_vl",),
    parse=_parse,
    build=VisionLanguageModel,
    rename=rename_qwen,
    reshape=reshape_qwen,
    about="window attention in the vision encoder",
)

"""Qwen3-VL, dense and with experts: what some vision blocks see joins the first decoder layers.

Reference: Bai et al. (2025), "Qwen3-VL Technical Report", arXiv:2511.21631; Meng et al. (2024),
"DeepStack", arXiv:2406.04334.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.declare.section import Section
from vlmkit.models.config import ModelConfig, VisionConfig, parse_config, shared_vision
from vlmkit.models.families.expert_weights import arrange_experts
from vlmkit.models.families.family import Family, rename_qwen, reshape_qwen
from vlmkit.models.text_reading import TextTraits
from vlmkit.models.vlm import VisionLanguageModel

_TEXT = TextTraits(
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=5e5,
    mrope_section=(24, 20, 20),
    mrope_interleaved=True,
    attention_bias=None,
    qk_norm=True,
)


def read_vision(section: Section, *, deepstack: tuple[int, ...] = ()) -> VisionConfig:
    """Read the ``vision_config`` of Qwen3-VL and its kin.

    Args:
        section: of config.json.
        deepstack: the blocks whose output joins decoder layers.
    """
    return VisionConfig(
        **shared_vision(section, default_act="gelu_pytorch_tanh", patch_size=16),
        embed_dim=section.positive("hidden_size"),
        out_hidden_size=section.positive("out_hidden_size"),
        intermediate_size=section.positive("intermediate_size"),
        norm="layer_norm",
        gated_mlp=False,
        patch_bias=True,
        num_position_embeddings=section.positive("num_position_embeddings", 2304),
        video_time_step=None,
        deepstack_blocks=deepstack,
    )


def _vision(section: Section) -> VisionConfig:
    blocks = section.integers("deepstack_visual_indexes", (8, 16, 24))
    return read_vision(section, deepstack=blocks)


def _parse(config: Mapping[str, Any]) -> ModelConfig:
    return parse_config(config, vision=_vision, text=_TEXT)


def _parse_experts(config: Mapping[str, Any]) -> ModelConfig:
    return parse_config(config, vision=_vision, text=_TEXT._replace(has_experts=True))


QWEN3_VL = Family(
    name="qwen3_vl",
    model_types=("qwen3_vl",),
    parse=_parse,
    build=VisionLanguageModel,
    rename=rename_qwen,
    reshape=reshape_qwen,
    about="features of vision blocks in the first decoder layers",
)
QWEN3_VL_MOE = QWEN3_VL._replace(
    name="qwen3_vl_moe",
    model_types=("qwen3_vl_moe",),
    parse=_parse_experts,
    about="the same, with experts",
    arrange=arrange_experts,
)

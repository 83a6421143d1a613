"""Qwen3.5: gated delta nets with full attention every fourth layer; the eyes of Qwen3-VL.

The larger ones have experts in place of each MLP, and one more that all tokens share.

Reference: Bai et al. (2025), "Qwen3-VL Technical Report", arXiv:2511.21631 (vision, positions);
Yang et al. (2024), arXiv:2412.06464 (delta net); Qiu et al. (2025), arXiv:2505.06708 (the gate).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.models.config import ModelConfig, TokenIds, parse_config
from vlmkit.models.families.expert_weights import arrange_experts
from vlmkit.models.families.family import Family, rename_qwen, reshape_centred
from vlmkit.models.families.qwen3_vl import read_vision
from vlmkit.models.text_reading import TextTraits
from vlmkit.models.vlm import VisionLanguageModel

_TEXT = TextTraits(
    head_dim=256,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    rotary_factor=0.25,
    mrope_section=(11, 11, 10),
    mrope_interleaved=True,
    attention_bias=None,
    qk_norm=True,
    output_gate=True,
    full_attention_interval=4,
)
_IDS = TokenIds(image=248056, video=248057, vision_start=248053, vision_end=248054)


def _parse(config: Mapping[str, Any]) -> ModelConfig:
    return parse_config(config, vision=read_vision, text=_TEXT, ids=_IDS)


def _parse_experts(config: Mapping[str, Any]) -> ModelConfig:
    text = _TEXT._replace(has_experts=True, has_shared_expert=True)
    return parse_config(config, vision=read_vision, text=text, ids=_IDS)


QWEN3_5 = Family(
    name="qwen3_5",
    model_types=("qwen3_5",),
    parse=_parse,
    build=VisionLanguageModel,
    rename=rename_qwen,
    reshape=reshape_centred,
    about="gated delta nets, full attention every fourth layer; also 3.6 and 3.8",
    is_cast=lambda path: not path.endswith(".A_log"),
)

QWEN3_5_MOE = QWEN3_5._replace(
    name="qwen3_5_moe",
    model_types=("qwen3_5_moe",),
    parse=_parse_experts,
    about="the same, with experts",
    arrange=arrange_experts,
)

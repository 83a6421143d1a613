"""The supported model families. A family is data: how its config, names and weights map onto ours.

Parameter paths of a vision-language model (`nn.Module.parameters()`, flattened):

    language.embed_tokens.weight                        [vocabulary, hidden]
    language.layers.N.self_attn.{q,k,v,o}_proj.weight   and .bias where the family has one
    language.layers.N.self_attn.{q,k}_norm.weight       where the family has them
    language.layers.N.linear_attn.in_proj_{qkv,z,b,a}.weight, .conv1d.weight [channels, size],
        .A_log, .dt_bias, .norm.weight, .out_proj.weight   in place of self_attn
    language.layers.N.mlp.{gate,up,down}_proj.weight, or, where the family has experts,
        .mlp.gate.weight, .mlp.switch_mlp.{gate,up,down}_proj.weight [experts, outputs, inputs],
        .mlp.shared_expert.{gate,up,down}_proj.weight, .mlp.shared_expert_gate.weight
    language.layers.N.{input,post_attention}_layernorm.weight
    language.layers.N.{pre,post}_feedforward_layernorm.weight   where the family has them
    language.norm.weight
    language.lm_head.weight                             absent when the head is tied
    vision.patch_embed.weight                           [embed, channels * time * size * size]
    vision.pos_embed.weight                             where the family has one
    vision.blocks.N.{norm1,norm2}.weight, .attn.{qkv,proj}.weight, .mlp.*.weight, and biases
    vision.merger.{ln_q,fc1,fc2}.weight, and biases
    vision.merger.{norm,proj}.weight   in their place where tokens are pooled
    vision.post_norm.weight, .bias     where the family has one
    vision.deepstack.N.{ln_q,fc1,fc2}.weight, and biases   where the family has some
    audio.{conv1,conv2}.weight [embed, 3 * inputs], and biases, .pos_embed.weight
    audio.blocks.N.{norm1,norm2}.weight, .attn.{q,k,v,out}_proj.weight, .{fc1,fc2}.weight, and
        biases where there are some
    audio.norm.weight, .projector.weight, and biases
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from vlmkit.declare.section import shown
from vlmkit.errors import VlmkitError
from vlmkit.models.families.family import Family
from vlmkit.models.families.gemma3 import GEMMA3
from vlmkit.models.families.qwen2_5_vl import QWEN2_5_VL
from vlmkit.models.families.qwen2_audio import QWEN2_AUDIO
from vlmkit.models.families.qwen2_vl import QWEN2_VL
from vlmkit.models.families.qwen3_5 import QWEN3_5, QWEN3_5_MOE
from vlmkit.models.families.qwen3_vl import QWEN3_VL, QWEN3_VL_MOE

__all__ = ["FAMILIES", "Family", "find_family"]

_MAX_NAME = 100  # characters of a name that are compared with others

FAMILIES: tuple[Family, ...] = (
    *(QWEN2_VL, QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5, QWEN3_5_MOE),
    *(GEMMA3, QWEN2_AUDIO),
)


def find_family(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a checkpoint's config.json, or None if no family has its model type.

    A text-only checkpoint has no family: see :mod:`vlmkit.models.lm_adapter`. That is also one of
    a family's model type without its ``vision_config`` or ``audio_config``: mlx-lm's convert keeps
    the text part alone.

    Args:
        config: the contents of config.json.

    Raises:
        VlmkitError: there is no ``model_type``.

    Example:
        >>> find_family({"model_type": "qwen2_vl", "vision_config": {}}).name
        'qwen2_vl'
        >>> find_family({"model_type": "qwen2_vl"}) is find_family({"model_type": "llama"}) is None
        True
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise VlmkitError("config.json has no 'model_type'; supported: " + ", ".join(known_types()))
    for family in FAMILIES:
        has_senses = any(config.get(key) is not None for key in family.senses)
        if model_type in family.model_types and has_senses:
            return family
    return None


def known_types() -> tuple[str, ...]:
    """Return every ``model_type`` of config.json that a family supports."""
    return tuple(name for family in FAMILIES for name in family.model_types)


def unsupported(model_type: str) -> VlmkitError:
    """Return the error for a model type that neither a family nor a text architecture serves."""
    near = difflib.get_close_matches(model_type[:_MAX_NAME], known_types(), n=3, cutoff=0.5)
    nearest = f"; the nearest that are: {', '.join(near)}" if near else ""
    return VlmkitError(
        f"config.json: model_type {shown(model_type)} is not supported{nearest}; 'vlmkit models' "
        "lists all, and text-only checkpoints run through mlx-lm"
    )

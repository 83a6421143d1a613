"""The config.json of a small checkpoint of each family."""

from __future__ import annotations

from typing import Any

VOCABULARY = 120
IMAGE, VIDEO, START, END = 100, 101, 102, 103
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
    "use_sliding_window": False,
    "sliding_window": 64,
    "max_window_layers": 3,
    "bos_token_id": 104,
    "eos_token_id": 105,
}
IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
VISION_2 = {
    "depth": 2,
    "embed_dim": 32,
    "hidden_size": 48,
    "num_heads": 2,
    "mlp_ratio": 2,
    "in_channels": 3,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
VISION_2_5 = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_heads": 2,
    "in_channels": 3,
    "out_hidden_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 16,
    "fullatt_block_indexes": [1],
}
TEXT_3_5 = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [3, 3, 2],
        "mrope_interleaved": True,
    },
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
    "bos_token_id": 104,
    "eos_token_id": 105,
}
EXPERTS_3_5 = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 28,
}
TEXT_3 = {
    "num_hidden_layers": 3,
    "rope_parameters": None,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "default",
        "mrope_section": [6, 5, 5],
        "mrope_interleaved": True,
    },
}
EXPERTS_3 = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
}
DEEPSTACK = {"depth": 4, "deepstack_visual_indexes": [0, 2]}
VISION_3_5 = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_heads": 2,
    "in_channels": 3,
    "out_hidden_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 25,
    "hidden_act": "gelu_pytorch_tanh",
}


def qwen2_vl(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen2-VL, in the flat layout."""
    config = {"model_type": "qwen2_vl", "tie_word_embeddings": True, **IDS, **TEXT, **text}
    return config | {"vision_config": VISION_2 | (vision or {})}


def qwen2_5_vl(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen2.5-VL, in the flat layout."""
    config = {"model_type": "qwen2_5_vl", "tie_word_embeddings": False, **IDS, **TEXT, **text}
    return config | {"vision_config": VISION_2_5 | (vision or {})}


def qwen3_5(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3.5, which there is in the nested layout only."""
    text_config = {"model_type": "qwen3_5_text", **TEXT_3_5, **text}
    head = {"model_type": "qwen3_5", **IDS}
    head["tie_word_embeddings"] = text_config.pop("tie_word_embeddings")
    return head | {"text_config": text_config, "vision_config": VISION_3_5 | (vision or {})}


def qwen3_5_moe(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3.5 with experts."""
    config = qwen3_5(vision=vision, **{**EXPERTS_3_5, **text})
    config["text_config"].pop("intermediate_size")
    config["text_config"]["model_type"] = "qwen3_5_moe_text"
    return config | {"model_type": "qwen3_5_moe"}


def qwen3_vl(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3-VL, which there is in the nested layout only."""
    config = qwen3_5(vision={**DEEPSTACK, **(vision or {})}, **{**TEXT_3, **text})
    text_config = {key: value for key, value in config["text_config"].items() if value is not None}
    config["text_config"] = {**text_config, "model_type": "qwen3_vl_text"}
    return config | {"model_type": "qwen3_vl"}


def qwen3_vl_moe(*, vision: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """Return the config.json of a small Qwen3-VL with experts in some layers."""
    config = qwen3_vl(vision=vision, **{**EXPERTS_3, **text})
    config["text_config"]["model_type"] = "qwen3_vl_moe_text"
    return config | {"model_type": "qwen3_vl_moe"}


def nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return the same config as transformers 5 writes it."""
    if "text_config" in config:
        return config
    top = {key: config[key] for key in ("model_type", "tie_word_embeddings", *IDS, "vision_config")}
    text = {key: value for key, value in config.items() if key not in top}
    theta = text.pop("rope_theta")
    scaling = dict(text.pop("rope_scaling"))
    scaling.pop("type")
    text["rope_parameters"] = {**scaling, "rope_type": "default", "rope_theta": theta}
    return {**top, "text_config": text}

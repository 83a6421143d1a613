"""Tiny text-only models of mlx-lm: one config per kind of layer, with random weights."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from vlmkit.models.lm_adapter import LmModel
from vlmkit.models.lm_build import build_lm

VOCABULARY = 60
WINDOW = 6
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "layer_norm_eps": 1e-5,
}
PLAIN: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {},
    "gemma": {"tie_word_embeddings": True},  # scales its embedding
    "cohere": {"logit_scale": 0.25},  # scales its logits
    "granite": {  # scales nearly everything
        "logits_scaling": 3.0,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "attention_bias": False,
        "mlp_bias": False,
    },
}
LATENT = {"kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 7}
UNEQUAL: dict[str, dict[str, Any]] = {  # keys and values of different sizes
    "deepseek_v2": {"q_lora_rank": 12, "rope_scaling": {"type": "linear", "factor": 2.0}, **LATENT},
    "minicpm3": {
        "q_lora_rank": 12,
        "dim_model_base": 16,
        "scale_depth": 1.4,
        "scale_emb": 2.0,
        "rope_scaling": {"original_max_position_embeddings": 256, "long_factor": [1.0] * 2},
        **LATENT,
    },
}
WINDOWED: dict[str, dict[str, Any]] = {
    "llama_sliding": {
        "model_type": "llama",
        "layer_types": [SLIDING, FULL, SLIDING],
        "sliding_window": WINDOW,
        "num_hidden_layers": 3,
    },
    "gemma3_text": {
        "sliding_window": WINDOW,
        "sliding_window_pattern": 3,
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": 8,
    },
    "gemma3": {  # wraps its text model
        "text_config": {
            **BASE,
            "model_type": "gemma3_text",
            "sliding_window": WINDOW,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 8,
        },
    },
    "gpt_oss": {  # with attention sinks
        "layer_types": [SLIDING, FULL],
        "sliding_window": WINDOW,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_scaling": None,
    },
    "cohere2": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "olmo3": {"sliding_window": WINDOW, "layer_types": [SLIDING, FULL]},
}
DELTA_NET = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "linear_conv_kernel_dim": 4,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
}
CONV = {
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "layer_types": ["conv", FULL, "conv"],
    "num_hidden_layers": 3,
}
MAMBA2 = {"conv_kernel": 4, "n_groups": 2, "use_bias": False, "use_conv_bias": True}
RECURRENT: dict[str, dict[str, Any]] = {
    "lfm2": {  # short convolutions
        "block_dim": 32,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
        **CONV,
    },
    "lfm2_moe": {"use_expert_bias": True, "num_dense_layers": 1, **CONV, **EXPERTS},
    "qwen3_next": {  # gated delta net
        "num_hidden_layers": 4,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 16,
        "mlp_only_layers": [0],
        "partial_rotary_factor": 0.5,
        **DELTA_NET,
        **EXPERTS,
    },
    "qwen3_5": {"num_hidden_layers": 4, **DELTA_NET},  # its text model is a part of it
    "olmo_hybrid": {
        "num_hidden_layers": 2,
        "layer_types": [LINEAR, FULL],
        "linear_allow_neg_eigval": True,
        "attention_bias": False,
        **DELTA_NET,
    },
    "mamba": {"state_size": 8, "time_step_rank": 4, **MAMBA2},
    "mamba2": {
        "num_heads": 4,
        "state_size": 8,
        "layer_norm_epsilon": 1e-5,
        "time_step_limit": (0.001, 100.0),
        "time_step_rank": 4,
        **MAMBA2,
    },
    "granitemoehybrid": {
        **PLAIN["granite"],
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_proj_bias": False,
        "mamba_d_state": 8,
        "mamba_d_conv": 4,
        "mamba_n_groups": 2,
        "mamba_conv_bias": True,
        "shared_intermediate_size": 16,
    },
    "kimi_linear": {  # gated delta net with keys and values of different sizes
        "linear_attn_config": {
            "kda_layers": [1],
            "full_attn_layers": [2],
            "head_dim": 8,
            "num_heads": 4,
            "short_conv_kernel_size": 4,
        },
        "model_max_length": 256,
        **LATENT,
        **EXPERTS,
        "num_experts": 0,
    },
    "nemotron_h": {
        "num_hidden_layers": 3,
        "hybrid_override_pattern": ["M", "*", "-"],  # the last layer keeps nothing
        "attention_bias": False,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "mamba_proj_bias": False,
        "ssm_state_size": 8,
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        **MAMBA2,
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 8,
        "mamba_expand": 2,
        **EXPERTS,
    },
    "recurrent_gemma": {  # RG-LRU, which begins in a way of its own, and sliding windows
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "attention_bias": False,
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "attention_window_size": WINDOW,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "rwkv7": {
        "norm_eps": 1e-5,
        "a_low_rank_dim": 4,
        "v_low_rank_dim": 4,
        "gate_low_rank_dim": 4,
        "decay_low_rank_dim": 4,
    },
}
ARCHITECTURES = {**PLAIN, **UNEQUAL, **WINDOWED, **RECURRENT}


def config(name: str, **changes: Any) -> dict[str, Any]:
    """Return the config.json of an entry of the tables above, or of the base alone."""
    return {"model_type": name, **BASE, **ARCHITECTURES.get(name, {}), **changes}


def random_lm(name: str) -> LmModel:
    """Build a model with random weights."""
    values = config(name)
    lm, rng = build_lm(values), np.random.default_rng(1)
    weights = [
        (path, mx.array(rng.standard_normal(value.shape, dtype=np.float32) * 0.3))
        for path, value in tree_flatten(lm.parameters())
    ]
    lm.load_weights(weights)
    return LmModel(lm, values)

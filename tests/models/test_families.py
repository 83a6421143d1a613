"""Configs, weight names and layouts of the families."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.models.tiny import build, nested, qwen2_5_vl, qwen2_vl
from vlmkit.backend.policy import PLAIN
from vlmkit.contracts.interface import KVSpec
from vlmkit.errors import VlmkitError
from vlmkit.models.config import ModelConfig
from vlmkit.models.families import FAMILIES, Family, find_family


def parsed(config: dict[str, Any]) -> tuple[Family, ModelConfig]:
    family = find_family(config)
    assert family is not None
    return family, family.parse(config)


NAMES = {
    # hub, transformers 5, mlx-vlm -> ours
    "language.embed_tokens.weight": (
        "model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
    ),
    "language.layers.11.self_attn.q_proj.scales": (
        "model.layers.11.self_attn.q_proj.scales",
        "model.language_model.layers.11.self_attn.q_proj.scales",
        "language_model.model.layers.11.self_attn.q_proj.scales",
    ),
    "language.layers.0.mlp.down_proj": (
        "model.layers.0.mlp.down_proj",
        "model.language_model.layers.0.mlp.down_proj",
        "language_model.model.layers.0.mlp.down_proj",
    ),
    "language.norm.weight": (
        "model.norm.weight",
        "model.language_model.norm.weight",
        "language_model.model.norm.weight",
    ),
    "vision.patch_embed.weight": (
        "visual.patch_embed.proj.weight",
        "model.visual.patch_embed.proj.weight",
        "vision_tower.patch_embed.proj.weight",
    ),
    "vision.merger.fc2.biases": (
        "visual.merger.mlp.2.biases",
        "model.visual.merger.mlp.2.biases",
        "vision_tower.merger.mlp.2.biases",
    ),
    "vision.blocks.3.attn.qkv.bias": (
        "visual.blocks.3.attn.qkv.bias",
        "model.visual.blocks.3.attn.qkv.bias",
        "vision_tower.blocks.3.attn.qkv.bias",
    ),
}


@pytest.mark.parametrize("config", [qwen2_vl(), qwen2_5_vl()], ids=["qwen2_vl", "qwen2_5_vl"])
def test_three_dialects_of_weight_names(config: dict[str, Any]) -> None:
    family, model_config = parsed(config)
    for path, names in NAMES.items():
        assert [family.rename(name, model_config) for name in names] == [path] * 3


def test_head_is_needed_only_when_it_is_not_tied() -> None:
    family, tied = parsed(qwen2_vl(tie_word_embeddings=True))
    _, separate = parsed(qwen2_vl(tie_word_embeddings=False))
    for name in ("lm_head.weight", "language_model.lm_head.weight"):
        assert family.rename(name, tied) is None
        assert family.rename(name, separate) == "language.lm_head.weight"
    assert family.rename("model.layers.0.self_attn.rotary_emb.inv_freq", tied) is None
    assert family.rename("visual.rotary_pos_emb.inv_freq", tied) is None
    assert family.rename("adapter.weight", tied) == "adapter.weight"


def test_every_parameter_has_a_name_on_the_hub() -> None:
    for config in (qwen2_vl(tie_word_embeddings=False), qwen2_5_vl()):
        family, model_config = parsed(config)
        for path, _ in tree_flatten(build(config).parameters()):
            name = path.replace("language.lm_head", "lm_head").replace("language.", "model.")
            name = name.replace("vision.", "visual.").replace("patch_embed", "patch_embed.proj")
            name = name.replace("merger.fc1", "merger.mlp.0").replace("merger.fc2", "merger.mlp.2")
            assert family.rename(name, model_config) == path


def test_patch_embedding_from_either_layout() -> None:
    family, config = parsed(qwen2_vl())
    path, kernel = "vision.patch_embed.weight", mx.random.normal((32, 3, 2, 4, 4))
    flat = family.reshape(path, path, kernel, config)
    assert flat.shape == (32, 96)
    assert mx.array_equal(flat, family.reshape(path, path, kernel.transpose(0, 2, 3, 4, 1), config))
    assert mx.array_equal(flat, family.reshape(path, path, flat, config))
    with pytest.raises(VlmkitError, match=r"\(32, 5, 2, 4, 4\).*\(32, 3, 2, 4, 4\)"):
        family.reshape(path, path, mx.zeros((32, 5, 2, 4, 4)), config)


def test_flat_and_nested_configs_agree() -> None:
    for config in (qwen2_vl(), qwen2_5_vl(), qwen2_vl(tie_word_embeddings=False)):
        assert parsed(config)[1] == parsed(nested(config))[1]
    inner = nested(qwen2_vl())
    inner["text_config"]["tie_word_embeddings"] = inner.pop("tie_word_embeddings")
    assert parsed(inner)[1].text_config.tie_word_embeddings


def test_config_as_published_for_qwen2_vl_2b() -> None:
    config = parsed({
        "model_type": "qwen2_vl", "hidden_act": "silu", "hidden_size": 1536, "eos_token_id": 151645,
        "image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
        "intermediate_size": 8960, "max_position_embeddings": 32768, "max_window_layers": 28,
        "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
        "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16,
                          "in_chans": 3, "hidden_size": 1536, "patch_size": 14,
                          "spatial_merge_size": 2, "spatial_patch_size": 14,
                          "temporal_patch_size": 2},
    })[1]  # fmt: skip
    assert config.text_config.head_dim == 128
    assert (config.vocab_size, config.max_position_embeddings) == (151936, 32768)
    assert config.eos_token_id == (151645,)
    assert config.vision_config.patch_dim == 1176
    assert config.vision_config.intermediate_size == 5120


def changed(section: str | None, **values: Any) -> dict[str, Any]:
    config = qwen2_5_vl()
    (config if section is None else config[section]).update(values)
    return config


BAD = [
    (changed(None, hidden_act="relu"), r"hidden_act 'relu' is not supported; supported: silu"),
    (changed(None, hidden_size=None), "hidden_size is missing"),
    (changed(None, num_hidden_layers="three"), "num_hidden_layers is 'three'"),
    (changed(None, num_attention_heads=5), "num_attention_heads is 5; it has to divide"),
    (changed(None, num_key_value_heads=3), "num_key_value_heads is 3; it has to divide"),
    (changed(None, use_sliding_window=True, max_window_layers=1), "sliding-window text attention"),
    (changed(None, layer_types=["sliding_attention"]), "sliding-window text attention"),
    (changed(None, rope_scaling={"type": "yarn"}), r"rope_scaling.type 'yarn' is not supported"),
    (
        changed(None, rope_scaling={"mrope_section": [2, 2]}),
        r"mrope_section is \[2, 2\]; it has to sum to head_dim / 2, 6",
    ),
    (changed("vision_config", hidden_act="relu"), r"vision_config.hidden_act 'relu'"),
    (changed("vision_config", depth=0), r"vision_config.depth is 0; .* integer above 0"),
    (changed("vision_config", out_hidden_size=7), "it has to be the text hidden_size, 48"),
    (changed("vision_config", window_size=4), "window_size is 4 pixels; it has to hold a token, 8"),
    (changed("vision_config", patch_size=[4, 8]), r"patch_size is \[4, 8\]"),
    (changed("vision_config", rope_parameters={"rope_type": "yarn"}), "rope_type 'yarn'"),
    (changed(None, vision_config=3), "vision_config is 3; it has to be a mapping"),
    (changed(None, image_token_id="x"), "image_token_id is 'x'"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_configs_are_one_clear_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as error:
        parsed(config)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("config.json: ")


def test_model_type_is_needed_and_unique() -> None:
    with pytest.raises(VlmkitError, match="model_type"):
        find_family({})
    types = [name for family in FAMILIES for name in family.model_types]
    assert len(types) == len(set(types))


@pytest.mark.parametrize(
    ("name", "peer"),
    [("silu", "silu"), ("quick_gelu", "gelu_fast_approx"), ("gelu", "gelu"),
     ("gelu_pytorch_tanh", "gelu_approx")],
)  # fmt: skip
def test_activations_equal_those_of_mlx(name: str, peer: str) -> None:
    x = mx.concatenate([mx.linspace(-8, 8, 999), mx.array([-1000.0, 1000.0])])
    mx.disable_compile()  # a second of a C++ compiler
    expected = vars(nn)[peer](x)
    mx.enable_compile()
    assert float(mx.abs(PLAIN.forms.activations[name](x) - expected).max()) < 2e-6


def test_model_holds_nothing_but_weights() -> None:
    model = build(qwen2_vl())
    assert model.dtype == mx.float32
    assert model.layer_specs == (KVSpec(2, 12, 12, num_heads=4),) * 3
    before = {path: np.array(value) for path, value in tree_flatten(model.parameters())}
    model.logits(model.embed_tokens(mx.array([[1, 2]])))
    after = dict(tree_flatten(model.parameters()))
    assert before.keys() == after.keys()

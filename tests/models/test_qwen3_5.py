"""Qwen3.5: its config, its names, and states that padding and cuts leave alone."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.loading.qwen3_5 import hub_name, mlx_name
from tests.models.tiny import (
    build,
    continuation,
    decode,
    empty_cache,
    prefill,
    prompt,
    qwen3_5,
)
from vlmkit.contracts.interface import KVSpec, RecurrentSpec, StateArray
from vlmkit.errors import VlmkitError
from vlmkit.models.families.qwen3_5 import QWEN3_5
from vlmkit.models.mrope_positions import mrope_positions
from vlmkit.models.rope import mrope_rotation
from vlmkit.passes.embed import embed_prompts

GRIDS: list[list[tuple[int, int, int]]] = [[], [(1, 6, 10)], [(1, 4, 4), (1, 10, 6)]]
ATOL = 1e-4  # of states, which are of order one
LINEAR, FULL = "linear_attention", "full_attention"


def changed(section: str, **values: Any) -> dict[str, Any]:
    config = qwen3_5()
    inner = config if not section else config[section]
    return {**config, **values} if not section else {**config, section: {**inner, **values}}


def rope(**values: Any) -> dict[str, Any]:
    given = qwen3_5()["text_config"]["rope_parameters"]
    return changed("text_config", rope_parameters={**given, **values})


def test_config_as_published() -> None:
    text = {
        "attention_bias": False, "attn_output_gate": True, "eos_token_id": 248044,
        "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu", "hidden_size": 2560,
        "intermediate_size": 9216, "layer_types": ([LINEAR] * 3 + [FULL]) * 8,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_value_head_dim": 128,
        "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_5_text",
        "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False,
        "num_attention_heads": 16, "num_hidden_layers": 32, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "tie_word_embeddings": True, "use_cache": True,
        "vocab_size": 248320, "mamba_ssm_dtype": "float32",
        "rope_parameters": {"mrope_interleaved": True, "mrope_section": [11, 11, 10],
                            "partial_rotary_factor": 0.25, "rope_theta": 10000000,
                            "rope_type": "default"},
    }  # fmt: skip
    vision = {
        "deepstack_visual_indexes": [], "depth": 24, "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024, "in_channels": 3, "initializer_range": 0.02,
        "intermediate_size": 4096, "model_type": "qwen3_5", "num_heads": 16,
        "num_position_embeddings": 2304, "out_hidden_size": 2560, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    config = {
        "model_type": "qwen3_5", "image_token_id": 248056, "video_token_id": 248057,
        "vision_start_token_id": 248053, "vision_end_token_id": 248054,
        "tie_word_embeddings": True, "text_config": text, "vision_config": vision,
    }  # fmt: skip
    parsed = QWEN3_5.parse(config)
    decoder, delta_net = parsed.text_config, parsed.text_config.delta_net
    assert (decoder.head_dim, decoder.rotary_dim, decoder.rope_theta) == (256, 64, 1e7)
    assert decoder.mrope_section == (11, 11, 10)
    assert decoder.mrope_interleaved
    assert decoder.layer_types[:4] == (LINEAR, LINEAR, LINEAR, FULL)
    assert delta_net is not None
    assert (delta_net.conv_dim, delta_net.conv_size) == (8192, 4)
    assert (parsed.vision_config.patch_dim, parsed.vision_config.patch_bias) == (1536, True)
    # What a config need not say.
    for key in ("layer_types", "head_dim", "rms_norm_eps", "attention_bias", "mlp_only_layers"):
        text.pop(key)
    for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        config.pop(key)
    assert QWEN3_5.parse(config) == parsed


BAD = [
    (changed("text_config", layer_types=["linear"] * 5), "text_config.layer_types has 'linear'; s"),
    (
        changed("text_config", layer_types=[FULL] * 3),
        "layer_types has 3 entries; num_hidden_layers",
    ),
    (
        changed("text_config", layer_types=["sliding_attention"] * 5),
        "sliding-window text attention",
    ),
    (changed("text_config", head_dim=7), "text_config.head_dim is 7; it has to be even"),
    (changed("text_config", head_dim=2**30), "head_dim is 1073741824; 4 heads of it are too many"),
    (
        changed("text_config", linear_num_key_heads=3),
        "key_heads is 3; it has to divide linear_num_v",
    ),
    (changed("text_config", linear_conv_kernel_dim=0), "conv_kernel_dim is 0; it has to be an int"),
    (changed("text_config", attention_bias="no"), "attention_bias is 'no'; it has to be true or"),
    (changed("text_config", full_attention_interval=0), "full_attention_interval is 0"),
    (rope(partial_rotary_factor=1.5), "partial_rotary_factor is 1.5; it has to be at most 1"),
    (rope(partial_rotary_factor=0.1), "an even part of head_dim, 32"),
    (rope(mrope_section=[3, 3, 3]), "has to sum to partial_rotary_factor \\* head_dim / 2, 8"),
    (rope(mrope_section=[4, 4]), r"mrope_section is \[4, 4\]; it has to be three numbers"),
    (rope(rope_type="yarn"), "rope_parameters.rope_type 'yarn' is not supported"),
    (
        changed("vision_config", num_position_embeddings=24),
        "embeddings is 24; it has to be a square",
    ),
    (changed("vision_config", out_hidden_size=7), "it has to be the text hidden_size, 48"),
    (changed("vision_config", hidden_act="relu"), "vision_config.hidden_act 'relu'"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_configs_are_one_clear_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as error:
        QWEN3_5.parse(config)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("config.json: ")


def test_every_parameter_has_a_name_of_each_tool() -> None:
    config = QWEN3_5.parse(qwen3_5())
    for path, _ in tree_flatten(QWEN3_5.build(config).parameters()):
        name = hub_name(path)
        assert QWEN3_5.rename(name, config) == path
        assert QWEN3_5.rename(mlx_name(name), config) == path
    for name in (
        "mtp.fc.weight",
        "language_model.mtp.norm.weight",
        "visual.rotary_pos_emb.inv_freq",
    ):
        assert QWEN3_5.rename(name, config) is None
    assert QWEN3_5.rename("model.language_model.visual.pos_embed.weight", config) == (
        "vision.pos_embed.weight"
    )


def test_norms_are_factors_whoever_wrote_them() -> None:
    config, stored = QWEN3_5.parse(qwen3_5()), mx.array([-0.25, 0.5], mx.bfloat16)
    path = "language.layers.0.input_layernorm.weight"
    hub = QWEN3_5.reshape(
        "model.language_model.layers.0.input_layernorm.weight", path, stored, config
    )
    mlx = QWEN3_5.reshape("language_model.model.layers.0.input_layernorm.weight", path, hub, config)
    assert hub.tolist() == mlx.tolist() == [0.75, 1.5]
    for name in ("language.layers.0.linear_attn.norm.weight", "vision.merger.ln_q.weight"):
        assert QWEN3_5.reshape("", name, stored, config).tolist() == stored.tolist()


def test_layers_store_what_they_are() -> None:
    linear = RecurrentSpec(
        (StateArray("window", (3, 80)), StateArray("memory", (4, 12, 8), mx.float32))
    )
    assert build(qwen3_5()).layer_specs == (linear,) * 3 + (KVSpec(2, 32, 32, num_heads=4), linear)


@pytest.mark.parametrize("chunk", [None, 1, 7, 32])
def test_padding_and_cuts_leave_no_trace_in_states(chunk: int | None) -> None:
    config = qwen3_5()
    model = build(config)
    batch = [prompt(config, grids, seed) for seed, grids in enumerate(GRIDS)]
    together = embed_prompts(model, batch)
    assert len(set(together.lengths)) == len(batch)
    _, cache = prefill(model, together, empty_cache(model, len(batch)), chunk=chunk)
    tokens = np.stack([continuation(seed)[:4] for seed in range(len(batch))])
    steps = decode(model, cache, together.next_positions, tokens)
    for row, inputs in enumerate(batch):
        embedded = embed_prompts(model, [inputs])
        _, alone = prefill(model, embedded, empty_cache(model, 1))
        for layer in (0, 1, 2, 4):
            for found, expected in zip(cache.layers[layer], alone.layers[layer], strict=True):
                np.testing.assert_allclose(found[row], expected[0], atol=ATOL)
        expected_steps = decode(model, alone, embedded.next_positions, tokens[row : row + 1])
        np.testing.assert_allclose(steps[row], expected_steps[0], atol=ATOL * np.abs(steps).max())


@pytest.mark.torch
def test_positions_are_those_of_transformers() -> None:
    import torch
    from transformers import Qwen3_5Config
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5Model

    config = qwen3_5()
    with torch.device("meta"):
        model = Qwen3_5Model(Qwen3_5Config(**config))
    for seed, grids in enumerate(GRIDS[1:]):
        inputs = prompt(config, grids, seed)
        ids = torch.from_numpy(inputs.token_ids.astype(np.int64))[None]
        expected, deltas = model.get_rope_index(
            ids, (ids == config["image_token_id"]).int(), image_grid_thw=torch.tensor(grids)
        )
        found, following = mrope_positions(len(inputs.token_ids), inputs.media, merge_size=2)
        np.testing.assert_array_equal(found, expected[:, 0])
        assert following == len(inputs.token_ids) + int(deltas[0, 0])


def test_axes_take_turns_until_their_section_is_used_up() -> None:
    positions = mx.array([[[0]], [[1]], [[2]]], mx.int32)  # the axis, plus nothing of the rest
    turned = mrope_rotation(positions, dim=16, theta=1.0, sections=(3, 3, 2), interleaved=True)
    axes = np.arccos(np.array(turned.cos[0, 0, 0, :8])).round().astype(int)
    assert axes.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    turned = mrope_rotation(positions, dim=16, theta=1.0, sections=(5, 2, 1), interleaved=True)
    axes = np.arccos(np.array(turned.cos[0, 0, 0, :8])).round().astype(int)
    assert axes.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]

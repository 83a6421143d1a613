"""Our models against transformers, computed live over many configurations. Needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.models.test_parity import assert_near, golden
from tests.models.tiny import (
    CASES,
    build,
    continuation,
    decode,
    empty_cache,
    prefill,
    prompt,
)
from tests.models.tiny_configs import TEXT_3_5, nested, qwen2_5_vl, qwen2_vl, qwen3_5
from vlmkit.passes.embed import embed_prompts

pytestmark = pytest.mark.torch


def rope(*sections: int) -> dict[str, Any]:
    return {"rope_scaling": {"type": "mrope", "mrope_section": list(sections)}}


QUARTER = {**TEXT_3_5["rope_parameters"], "partial_rotary_factor": 0.25}  # type: ignore[dict-item]
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_vl tied": qwen2_vl(),
    "qwen2_vl separate head, one KV head": qwen2_vl(
        tie_word_embeddings=False, num_key_value_heads=1, rope_theta=1e6, **rope(1, 2, 3)
    ),
    "qwen2_vl as many KV heads as queries": qwen2_vl(
        num_attention_heads=3, num_key_value_heads=3, **rope(4, 2, 2), rms_norm_eps=1e-3
    ),
    "qwen2_vl merge 3, patch 6": qwen2_vl(
        vision={"spatial_merge_size": 3, "patch_size": 6, "mlp_ratio": 4, "num_heads": 4}
    ),
    "qwen2_vl one frame per patch, gelu": qwen2_vl(
        vision={"temporal_patch_size": 1, "in_channels": 1, "hidden_act": "gelu"}
    ),
    "qwen2_5_vl": qwen2_5_vl(),
    "qwen2_5_vl tied, no full block": qwen2_5_vl(
        tie_word_embeddings=True, vision={"fullatt_block_indexes": []}
    ),
    "qwen2_5_vl all full": qwen2_5_vl(vision={"fullatt_block_indexes": [0, 1, 2]}),
    "qwen2_5_vl windows of 3 tokens": qwen2_5_vl(
        vision={"window_size": 24, "fullatt_block_indexes": [2]}, **rope(3, 1, 2)
    ),
    "qwen2_5_vl windows of 1 token": qwen2_5_vl(vision={"window_size": 8}),
    "qwen2_5_vl window of no whole tokens": qwen2_5_vl(vision={"window_size": 30}),
    "qwen3_5": qwen3_5(),
    "qwen3_5 tied, as many keys as values, longer convolution": qwen3_5(
        tie_word_embeddings=True, linear_num_key_heads=4, linear_conv_kernel_dim=6
    ),
    "qwen3_5 one KV head, attention first, biases": qwen3_5(
        num_key_value_heads=1,
        num_hidden_layers=3,
        layer_types=["full_attention", "linear_attention", "full_attention"],
        attention_bias=True,
    ),
    "qwen3_5 a quarter turns, uneven sections": qwen3_5(
        head_dim=64, rope_parameters={**QUARTER, "mrope_section": [2, 1, 5]}
    ),
    "qwen3_5 all layers but one linear": qwen3_5(
        layer_types=["linear_attention", "full_attention", *["linear_attention"] * 3]
    ),
    "qwen3_5 merge 3, patch 6, a large table": qwen3_5(
        vision={"spatial_merge_size": 3, "patch_size": 6, "num_position_embeddings": 400}
    ),
}


def batch_for(config: dict[str, Any]) -> list[Any]:
    merge = config["vision_config"]["spatial_merge_size"]
    sizes = [[], [(1, 3, 5)], [(1, 2, 2), (1, 5, 3), (1, 3, 7)], [(1, 7, 7), (1, 7, 7)]]
    return [
        prompt(config, [(t, h * merge, w * merge) for t, h, w in grids], seed)
        for seed, grids in enumerate(sizes)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_matches_transformers_left_padded(name: str) -> None:
    from tests.models import oracle

    config = CONFIGS[name]
    batch = batch_for(config)
    tokens = np.stack([continuation(seed) for seed in range(len(batch))])
    expected_rows, expected_steps = oracle.logits(oracle.build(config), batch, tokens)
    model = build(config)
    embeddings = embed_prompts(model, batch)
    logits, cache = prefill(model, embeddings, empty_cache(model, len(batch)), chunk=16)
    steps = decode(model, cache, embeddings.next_positions, tokens)
    for row, expected in enumerate(expected_rows):
        assert_near(np.array(logits[row, : len(expected)]), expected)
    assert_near(steps, expected_steps)


@pytest.mark.parametrize("grids", [[(3, 4, 6)], [(5, 2, 2), (1, 4, 4)], [(2, 10, 6), (2, 4, 4)]])
@pytest.mark.parametrize("name", CASES)
def test_several_frames_match_transformers(name: str, grids: list[tuple[int, int, int]]) -> None:
    from tests.models import oracle

    config = CASES[name].config
    batch, tokens = [prompt(config, grids, 5)], continuation(5)[None]
    expected_rows, expected_steps = oracle.logits(oracle.build(config), batch, tokens)
    model = build(config)
    embeddings = embed_prompts(model, batch)
    logits, cache = prefill(model, embeddings, empty_cache(model, 1))
    assert_near(np.array(logits[0]), expected_rows[0])
    assert_near(decode(model, cache, embeddings.next_positions, tokens), expected_steps)


@pytest.mark.parametrize("name", CASES)
def test_golden_files_are_what_the_oracle_says(name: str) -> None:
    from tests.models import write_goldens

    for key, expected in write_goldens.compute(CASES[name]).items():
        np.testing.assert_allclose(golden(name)[key], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_config_as_transformers_writes_it_parses_to_the_same(name: str) -> None:
    from tests.models import oracle
    from vlmkit.models.families import find_family

    config = CASES[name].config
    family = find_family(config)
    assert family is not None
    written = oracle.CLASSES[family.name][0](**config).to_diff_dict()
    assert "text_config" in written
    assert family.parse(written) == family.parse(config) == family.parse(nested(config))

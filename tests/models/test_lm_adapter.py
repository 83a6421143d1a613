"""Text-only architectures of mlx-lm through our caches, against mlx-lm with its own cache."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from tests.models.tiny import decode, empty_cache, prefill
from vlmkit.embed import embed_prompts
from vlmkit.errors import VlmkitError
from vlmkit.inputs import Inputs, Media
from vlmkit.interface import KVSpec
from vlmkit.models.lm_adapter import LmModel
from vlmkit.models.lm_build import build_lm

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 60,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "layer_norm_eps": 1e-5,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
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
LENGTHS = (5, 11, 1)


def config(name: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": name, **BASE, **ARCHITECTURES.get(name, {}), **changes}


def random_lm(name: str) -> LmModel:
    values = config(name)
    lm, rng = build_lm(values), np.random.default_rng(1)
    weights = [
        (path, mx.array(rng.standard_normal(value.shape, dtype=np.float32) * 0.3))
        for path, value in tree_flatten(lm.parameters())
    ]
    lm.load_weights(weights)
    return LmModel(lm, values)


def prompts() -> list[Inputs]:
    rng = np.random.default_rng(2)
    return [Inputs.of(rng.integers(0, 60, length).astype(np.int32)) for length in LENGTHS]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_of_unequal_lengths_equals_mlx_lm_one_by_one(name: str) -> None:
    model, batch = random_lm(name), prompts()
    tokens = np.random.default_rng(3).integers(0, 60, (len(batch), 6)).astype(np.int32)
    embeddings = embed_prompts(model, batch)
    logits, cache = prefill(model, embeddings, empty_cache(model, len(batch)), chunk=4)
    steps = decode(model, cache, embeddings.next_positions, tokens)
    for row, inputs in enumerate(batch):
        peer = make_prompt_cache(model.lm)
        expected = np.array(model.lm(mx.array(inputs.token_ids)[None], cache=peer)[0])
        tolerance = 1e-4 * np.abs(expected).max()
        assert np.abs(expected).max() > 0.1
        assert np.abs(np.array(logits[row, : LENGTHS[row]]) - expected).max() < tolerance
        for step, token in enumerate(tokens[row]):
            expected = np.array(model.lm(mx.array([[int(token)]]), cache=peer)[0, 0])
            assert np.abs(steps[row, step] - expected).max() < tolerance


def test_layer_specs_come_from_the_graph() -> None:
    assert random_lm("qwen3").layer_specs == (KVSpec(2, 8, 8), KVSpec(2, 8, 8))
    assert LmModel(build_lm(config("gpt_neox") | {
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "hidden_act": "gelu",
    }), config("gpt_neox")).layer_specs == (KVSpec(4, 8, 8), KVSpec(4, 8, 8))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("llama", {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
         "RotatingKVCache"),
        ("mamba", {"state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True,
                   "time_step_rank": 4}, "ArraysCache"),
    ],
)  # fmt: skip
def test_other_memories_than_plain_caches_are_refused_by_name(
    name: str, changes: dict[str, Any], reason: str
) -> None:
    values = config(name, **changes)
    with pytest.raises(VlmkitError, match=f"'{name}' is not supported: .*{reason}"):
        LmModel(build_lm(values), values)


def test_unknown_architecture_lists_what_is_supported() -> None:
    with pytest.raises(VlmkitError, match=r"'qwen2_vll' is not supported.*mean 'qwen2_vl'"):
        build_lm(config("qwen2_vll"))


def test_bad_inputs() -> None:
    model = random_lm("llama")
    image = Inputs.of(
        np.array([1], np.int32),
        [Media.of("image", np.zeros((4, 3), np.float32), (1, 2, 2), (0, 1))],
    )
    with pytest.raises(VlmkitError, match="text-only"):
        embed_prompts(model, [image])
    with pytest.raises(VlmkitError, match="token id 60 is outside the vocabulary of 60"):
        embed_prompts(model, [Inputs.of(np.array([1, 60], np.int32))])
    with pytest.raises(VlmkitError, match="empty"):
        embed_prompts(model, [Inputs.of(np.array([], np.int32))])

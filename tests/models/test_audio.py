"""Qwen2-Audio against transformers' logits, stored in a golden file (see `audio_oracle.py`)."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.models.test_parity import assert_near, golden
from tests.models.tiny import (
    build,
    continuation,
    decode,
    empty_cache,
    prefill,
    seed_of,
)
from tests.models.tiny_audio import AUDIO, CONFIG, FEATURES, PROMPTS, prompt, sound
from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.errors import VlmkitError
from vlmkit.models.families import find_family
from vlmkit.models.vlm import VisionLanguageModel
from vlmkit.passes.embed import embed_prompts
from vlmkit.processors.whisper import log_mel


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return build(CONFIG)


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt_and_decode_logits_match_transformers(model: VisionLanguageModel, name: str) -> None:
    expected, seed = golden("qwen2_audio"), seed_of(name)
    for row, length in enumerate(PROMPTS[name]):
        features, count = log_mel(sound(length), FEATURES)
        kept = expected[f"{name}_features"][row].T.astype(np.float32)
        assert np.abs(features - kept).max() < 2e-3  # they are kept in 16 bits
        assert count == -(-length // 160)
    embeddings = embed_prompts(model, [prompt(PROMPTS[name], seed)])
    logits, cache = prefill(model, embeddings, empty_cache(model, 1))
    assert_near(np.array(logits[0]), expected[f"{name}_prompt"])
    steps = decode(model, cache, embeddings.next_positions, continuation(seed)[None])
    assert_near(steps[0], expected[f"{name}_steps"])


@pytest.mark.parametrize("chunk", [None, 7])
def test_batch_of_unequal_prompts_matches_transformers(
    model: VisionLanguageModel, chunk: int | None
) -> None:
    expected, seeds = golden("qwen2_audio"), {name: seed_of(name) for name in PROMPTS}
    batch = [prompt(PROMPTS[name], seed) for name, seed in seeds.items()]
    embeddings = embed_prompts(model, batch)
    logits, cache = prefill(model, embeddings, empty_cache(model, len(batch)), chunk=chunk)
    tokens = np.stack([continuation(seed) for seed in seeds.values()])
    steps = decode(model, cache, embeddings.next_positions, tokens)
    for row, name in enumerate(seeds):
        length = embeddings.lengths[row]
        assert_near(np.array(logits[row, :length]), expected[f"{name}_prompt"])
        assert_near(steps[row], expected[f"{name}_steps"])


def test_clips_encoded_together_are_those_encoded_alone(model: VisionLanguageModel) -> None:
    media = [medium for name in PROMPTS for medium in prompt(PROMPTS[name], 1).media] + list(
        prompt((1000, 9000), 2).media
    )
    together = model.encode(media)
    for medium, features in zip(media, together, strict=True):
        (alone,) = model.encode([medium])
        assert mx.allclose(alone.embedded, features.embedded, atol=1e-6)


def test_windows_of_a_long_clip_are_those_of_short_ones(model: VisionLanguageModel) -> None:
    first, second = prompt((16000, 9000), 1).media
    both = Media.of(
        "audio", np.concatenate([first.data, second.data]), (*first.shape, *second.shape), (0, 39)
    )
    whole, *parts = model.encode([both, first, second])
    joined = mx.concatenate([part.embedded for part in parts])
    assert whole.embedded.shape == (39, 48)
    assert mx.allclose(whole.embedded, joined, atol=1e-6)


def test_sounds_that_do_not_fit_are_refused(model: VisionLanguageModel) -> None:
    inputs = prompt((9000,), 1)
    (medium,) = inputs.media
    cut = Media.of("audio", medium.data[:-1], medium.shape, medium.span)
    with pytest.raises(VlmkitError, match="the audio is 58 frames of 16 numbers; its length needs"):
        model.encode([cut])
    image = Media.of("image", np.zeros((4, 6), np.float32), (1, 2, 2), (0, 1))
    with pytest.raises(VlmkitError, match="qwen2_audio takes no image"):
        model.encode([image])
    with pytest.raises(VlmkitError, match="1 placeholder tokens, and its 0 media need 0"):
        embed_prompts(model, [Inputs.of(np.array([5, AUDIO], np.int32))])


def test_names_of_weights_of_either_layout() -> None:
    family = find_family(CONFIG)
    assert family is not None
    assert find_family({"model_type": "qwen2_audio"}) is None
    config = family.parse(CONFIG)
    for hub, ours in (
        (
            "language_model.model.layers.0.mlp.up_proj.weight",
            "language.layers.0.mlp.up_proj.weight",
        ),
        ("language_model.lm_head.weight", "language.lm_head.weight"),
        ("audio_tower.conv1.bias", "audio.conv1.bias"),
        ("audio_tower.embed_positions.weight", "audio.pos_embed.weight"),
        ("audio_tower.layers.3.self_attn_layer_norm.bias", "audio.blocks.3.norm1.bias"),
        ("audio_tower.layers.3.self_attn.k_proj.weight", "audio.blocks.3.attn.k_proj.weight"),
        ("audio_tower.layers.3.final_layer_norm.bias", "audio.blocks.3.norm2.bias"),
        ("audio_tower.layers.3.fc2.scales", "audio.blocks.3.fc2.scales"),
        ("audio_tower.layer_norm.weight", "audio.norm.weight"),
        ("multi_modal_projector.linear.weight", "audio.projector.weight"),
    ):
        assert family.rename(hub, config) == ours
        other = hub.replace("language_model.model", "language_model").removeprefix(
            "language_model.lm"
        )
        nested = f"model.{other}" if not hub.endswith("lm_head.weight") else "lm_head.weight"
        assert family.rename(nested, config) == ours
    paths = {path for path, _ in tree_flatten(build(CONFIG).parameters())}
    assert {"audio.conv2.weight", "audio.blocks.1.attn.q_proj.bias"} <= paths
    assert "audio.blocks.1.attn.k_proj.bias" not in paths


def test_kernels_of_either_layout() -> None:
    family = find_family(CONFIG)
    assert family is not None
    config, kernel = family.parse(CONFIG), mx.random.normal((32, 16, 3))
    path = "audio.conv1.weight"
    flat = family.reshape(path, path, kernel, config)
    assert flat.shape == (32, 48)
    assert mx.array_equal(flat, family.reshape(path, path, kernel.swapaxes(1, 2), config))
    with pytest.raises(VlmkitError, match=r"\[32, 5, 3\]; .* asks for \[32, 16, 3\]"):
        family.reshape(path, path, mx.zeros((32, 5, 3)), config)

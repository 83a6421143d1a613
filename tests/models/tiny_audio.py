"""A small Qwen2-Audio and prompts with sounds, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.processors.whisper import WhisperFeatures, pooled_rules

AUDIO = 100
VOCABULARY = 120
FEATURES = WhisperFeatures(feature_size=16, chunk_length=1)
CONFIG: dict[str, Any] = {
    "model_type": "qwen2_audio",
    "audio_token_index": AUDIO,
    "audio_config": {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 44,
        "d_model": 32,
        "max_source_positions": 50,
        "activation_function": "gelu",
    },
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 104,
        "eos_token_id": 105,
    },
}
PROMPTS: dict[str, tuple[int, ...]] = {  # samples of each sound
    "text": (),
    "one_clip": (9000,),
    "three_clips": (16000, 1000, 15999),
}


def sound(num_samples: int, seed: int = 0) -> np.ndarray:
    """A hum with noise, float32 at 16 kHz."""
    rng = np.random.default_rng([num_samples, seed])
    times = np.arange(num_samples) / 16000
    hum = 0.3 * np.sin(2 * np.pi * (200 + 900 * times) * times)
    return (hum + 0.05 * rng.standard_normal(num_samples)).astype(np.float32)


def prompt(lengths: Sequence[int], seed: int) -> Inputs:
    """Text with sounds in between."""
    rng, rules = np.random.default_rng(seed), pooled_rules(FEATURES)
    ids, media = list(rng.integers(0, AUDIO, rng.integers(3, 9))), []
    for length in lengths:
        data, frames = rules.features(sound(length))
        count = rules.num_tokens(frames)
        media.append(Media.of("audio", data, (frames,), (len(ids), len(ids) + count)))
        ids += [AUDIO] * count + list(rng.integers(0, AUDIO, rng.integers(1, 7)))
    return Inputs.of(np.array(ids, np.int32), media)

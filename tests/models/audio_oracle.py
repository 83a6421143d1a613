"""What transformers' Qwen2-Audio computes: ``python -m tests.models.audio_oracle``. Needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers

from tests.models.oracle import _CACHE
from tests.models.tiny import continuation, seed_of, tensor
from tests.models.tiny_audio import CONFIG, FEATURES, PROMPTS, prompt, sound
from vlmkit.models.families.qwen2_audio import QWEN2_AUDIO

GOLDEN = Path(__file__).parent / "goldens" / "qwen2_audio.npz"


def build() -> torch.nn.Module:
    """Return transformers' model with the weights of :func:`tests.models.tiny.tensor`."""
    config = transformers.Qwen2AudioConfig(
        audio_config=CONFIG["audio_config"],
        text_config=CONFIG["text_config"],
        audio_token_index=CONFIG["audio_token_index"],
    )
    model = transformers.Qwen2AudioForConditionalGeneration._from_config(
        config, attn_implementation="eager"
    )
    model = model.to(torch.float32).eval()
    parsed = QWEN2_AUDIO.parse(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            path = QWEN2_AUDIO.rename(name, parsed)
            assert path is not None, name
            shape = tuple(parameter.shape)
            if parameter.ndim == 3:  # ours has the kernel's places before the channels
                flat = tensor(path, (shape[0], shape[1] * shape[2]))
                values = flat.reshape(shape[0], shape[2], shape[1]).swapaxes(1, 2).copy()
            else:
                values = tensor(path, shape)
            parameter.copy_(torch.from_numpy(values))
    return model


def compute(model: torch.nn.Module, name: str) -> dict[str, np.ndarray]:
    """Return features, logits of the prompt and of each step after it."""
    lengths, seed = PROMPTS[name], seed_of(name)
    arguments = {}
    arrays = {}
    if lengths:
        extractor = transformers.WhisperFeatureExtractor(
            feature_size=FEATURES.feature_size, chunk_length=FEATURES.chunk_length
        )
        found = extractor(
            [sound(length) for length in lengths],
            sampling_rate=16000,
            return_attention_mask=True,
            return_tensors="np",
        )
        arrays[f"{name}_features"] = found["input_features"].astype(np.float16)
        arguments = {
            "input_features": torch.from_numpy(found["input_features"]),
            "feature_attention_mask": torch.from_numpy(found["attention_mask"]),
        }
    ids = torch.from_numpy(prompt(lengths, seed).token_ids.astype(np.int64))[None]
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **arguments)
        arrays[f"{name}_prompt"] = out.logits[0].numpy()
        steps, length = [], ids.shape[1]
        for step, token in enumerate(continuation(seed)):
            out = model(
                input_ids=torch.tensor([[int(token)]]),
                attention_mask=torch.ones((1, length + step + 1), dtype=torch.long),
                use_cache=True,
                **{_CACHE: out[_CACHE]},
            )
            steps.append(out.logits[0, -1].numpy())
    return {**arrays, f"{name}_steps": np.stack(steps)}


def main() -> None:
    """Write the golden file."""
    model = build()
    arrays = {}
    for name in PROMPTS:
        arrays |= compute(model, name)
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

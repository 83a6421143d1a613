"""Gemma 3 against transformers: windows, blocks of image tokens, the pooled vision encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.models.tiny import continuation, decode, empty_cache, prefill, tensor
from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.errors import VlmkitError
from vlmkit.models.families.gemma3 import GEMMA3
from vlmkit.passes.embed import embed_prompts
from vlmkit.passes.prefill import prefill as run_prefill

IMAGE, PATCH, SIDE, MERGE, TOKENS = 100, 4, 6, 2, 9
TOLERANCE = 1e-4
# The window is shorter than an image.
CONFIG: dict[str, Any] = {
    "model_type": "gemma3",
    "image_token_index": IMAGE,
    "boi_token_index": 102,
    "eoi_token_index": 103,
    "mm_tokens_per_image": TOKENS,
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 120,
        "sliding_window": 6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "query_pre_attn_scalar": 24,
        "max_position_embeddings": 512,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": PATCH * SIDE,
        "patch_size": PATCH,
    },
}


def patches_of(image: np.ndarray) -> np.ndarray:
    """Cut ``[3, H, W]`` into patches, merge block by merge block."""
    blocks = image.reshape(3, SIDE // MERGE, MERGE, PATCH, SIDE // MERGE, MERGE, PATCH)
    flat = blocks.transpose(1, 4, 2, 5, 0, 3, 6).reshape(SIDE**2, -1)
    return np.ascontiguousarray(flat)


def prompt(images: np.ndarray, lead: int) -> Inputs:
    ids, media = list(range(1, lead + 1)), []
    for image in images:
        start = len(ids) + 1
        ids += [102, *[IMAGE] * TOKENS, 103, 1, 2, 3]
        span = (start, start + TOKENS)
        media.append(Media.of("image", patches_of(image), (1, SIDE, SIDE), span))
    return Inputs.of(np.array(ids, np.int32), media)


@pytest.mark.torch
def test_prompts_batches_chunks_and_steps_match_transformers() -> None:
    import torch
    import transformers

    config = transformers.Gemma3Config(**CONFIG)
    theirs = transformers.Gemma3ForConditionalGeneration._from_config(
        config, attn_implementation="eager"
    )
    theirs = theirs.to(torch.float32).eval()
    parsed, arrays = GEMMA3.parse(CONFIG), {}
    assert dataclasses.replace(GEMMA3.parse(config.to_dict()), eos_token_id=()) == parsed
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            is_offset = "norm.weight" in name and "vision_tower" not in name
            value = tensor(name, parameter.shape) - np.float32(is_offset)
            parameter.copy_(torch.from_numpy(value))
            arrays[name] = mx.array(value)
    model = GEMMA3.build(parsed)
    named = GEMMA3.arrange(arrays, parsed).items()
    paths = {path: (n, x) for n, x in named if (path := GEMMA3.rename(n, parsed)) is not None}
    assert paths.keys() == {path for path, _ in tree_flatten(model.parameters())}
    model.load_weights(
        [(path, GEMMA3.reshape(n, path, x, parsed)) for path, (n, x) in paths.items()]
    )
    pixels = np.random.default_rng(0).standard_normal((3, 3, 24, 24)).astype(np.float32)
    batch = [prompt(pixels[:2], 5), prompt(pixels[2:], 9)]
    expected = [
        _their_logits(theirs, inputs, images)
        for inputs, images in zip(batch, (pixels[:2], pixels[2:]), strict=True)
    ]
    together = embed_prompts(model, batch)
    logits, cache = prefill(model, together, empty_cache(model, 2))
    steps = decode(model, cache, together.next_positions, np.stack([continuation(1)] * 2))
    for row, (whole, following) in enumerate(expected):
        scale = np.abs(whole).max()
        found = np.array(logits[row, : len(whole)])
        assert np.abs(found - whole).max() <= TOLERANCE * scale
        assert np.abs(steps[row] - following).max() <= TOLERANCE * scale
    for size in (1, 5, 8):
        _, last = run_prefill(model, together, empty_cache(model, 2), step_size=size)
        for row, (whole, _) in enumerate(expected):
            assert np.abs(np.array(last[row]) - whole[-1]).max() <= TOLERANCE * np.abs(whole).max()


def _their_logits(model: Any, inputs: Inputs, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    ids = torch.from_numpy(inputs.token_ids.astype(np.int64))[None]
    tokens, steps = continuation(1).astype(np.int64), []
    with torch.no_grad():
        out = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.from_numpy(pixels),
            token_type_ids=(ids == IMAGE).int(),
            use_cache=True,
        )
        whole = out.logits[0].numpy()
        key = "cache" if "cache" in out else "past_key_values"
        for place, token in enumerate(tokens):
            out = model(
                input_ids=torch.tensor([[int(token)]]),
                attention_mask=torch.ones((1, ids.shape[1] + place + 1), dtype=torch.int64),
                token_type_ids=torch.zeros((1, 1), dtype=torch.int32),
                use_cache=True,
                **{key: out[key]},
            )
            steps.append(out.logits[0, 0].numpy())
    return whole, np.stack(steps)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attn_logit_softcapping", 50.0, "attn_logit_softcapping is 50.0, which is not supported"),
        ("layer_types", ["linear_attention"] * 7, "has 'linear_attention'; supported: full_att"),
        ("sliding_window", 0, "sliding_window is 0"),
        ("rope_scaling", {"rope_type": "yarn"}, "rope_scaling.rope_type 'yarn' is not supported"),
    ],
)
def test_bad_configs_are_one_clear_error(key: str, value: object, message: str) -> None:
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], key: value}}
    with pytest.raises(VlmkitError, match=message):
        GEMMA3.parse(config)

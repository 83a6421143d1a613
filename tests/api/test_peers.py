"""The embedded model end to end: the same files, prompts and pictures through other toolkits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmkit
from tests.media import grids_of, patches_of
from vlmkit import generate
from vlmkit.preprocess import PreprocessConfig, prepare

ASSETS = str(Path(vlmkit.__file__).parent / "assets" / "shapes")
MAX_TOKENS = 48


@pytest.fixture(scope="module")
def questions(
    ask: Callable[..., str], samples: list[dict[str, Any]], sample_images: list[Path]
) -> list[tuple[str, Path]]:
    return [
        (ask(sample["question"], thinking=place % 3 != 0), image)
        for place, (sample, image) in enumerate(zip(samples, sample_images, strict=True))
    ][:8]


@pytest.mark.mlx_vlm
def test_greedy_tokens_are_those_of_mlx_vlm(
    shapes: tuple[Any, Any], questions: list[tuple[str, Path]]
) -> None:
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_vlm import load, stream_generate

    model, processor = load(ASSETS)
    model.update(tree_map(lambda leaf: leaf.astype(mx.float32), model.parameters()))
    for prompt, image in questions:
        ours = generate(*shapes, prompt, image=image, max_tokens=MAX_TOKENS)
        picture = Image.open(image).convert("RGB")
        theirs = [
            chunk.token
            for chunk in stream_generate(
                model, processor, prompt, image=[picture], max_tokens=MAX_TOKENS, temperature=0.0
            )
            if chunk.token is not None
        ]
        length = min(len(ours.token_ids), len(theirs))
        assert length >= 2
        assert ours.token_ids[:length] == theirs[:length]
        assert len(ours.token_ids) - length <= 1, "only the end-of-sequence token may differ"


@pytest.mark.torch
def test_greedy_tokens_are_those_of_transformers(
    shapes: tuple[Any, Any], questions: list[tuple[str, Path]]
) -> None:
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    oracle = Qwen2VLForConditionalGeneration.from_pretrained(ASSETS, dtype=torch.float32).eval()
    model, processor = shapes
    image_id = model.config.image_token_id
    for prompt, image in questions:
        ours = generate(model, processor, prompt, image=image, max_tokens=MAX_TOKENS)
        inputs = prepare(processor, prompt, [image], config=PreprocessConfig())
        ids = torch.tensor(inputs.token_ids[None].astype(np.int64))
        with torch.no_grad():
            out = oracle.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == image_id).int(),
                pixel_values=torch.tensor(patches_of(inputs)),
                image_grid_thw=torch.tensor(grids_of(inputs)),
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
            )
        assert out[0, ids.shape[1] :].tolist() == ours.token_ids

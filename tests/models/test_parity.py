"""Our models against transformers' logits, stored in golden files (see `write_goldens.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.media import patches_of, with_patches
from tests.models.tiny import (
    CASES,
    build,
    continuation,
    decode,
    empty_cache,
    prefill,
    prompt,
    seed_of,
)
from tests.models.tiny_configs import nested
from vlmkit.passes.embed import embed_prompts

TOLERANCE = 1e-4  # of the logits' scale


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "goldens" / f"{name}.npz") as arrays:
        return dict(arrays)


def assert_near(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 1  # or there is nothing to compare
    assert np.abs(actual - expected).max() <= TOLERANCE * scale


@pytest.mark.parametrize("prompt_name", ["text", "one_image", "three_images"])
@pytest.mark.parametrize("name", CASES)
def test_prompt_and_decode_logits_match_transformers(name: str, prompt_name: str) -> None:
    case, expected, seed = CASES[name], golden(name), seed_of(prompt_name)
    model = build(case.config)
    embeddings = embed_prompts(model, [prompt(case.config, case.prompts[prompt_name], seed)])
    logits, cache = prefill(model, embeddings, empty_cache(model, 1))
    assert_near(np.array(logits[0]), expected[f"{prompt_name}_prompt"])
    steps = decode(model, cache, embeddings.next_positions, continuation(seed)[None])
    assert_near(steps[0], expected[f"{prompt_name}_steps"])


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("name", CASES)
def test_batch_of_unequal_prompts_matches_transformers(name: str, chunk: int | None) -> None:
    case, expected = CASES[name], golden(name)
    model = build(nested(case.config))
    seeds = {prompt_name: seed_of(prompt_name) for prompt_name in case.prompts}
    batch = [prompt(case.config, case.prompts[key], seed) for key, seed in seeds.items()]
    embeddings = embed_prompts(model, batch)
    logits, cache = prefill(model, embeddings, empty_cache(model, len(batch)), chunk=chunk)
    tokens = np.stack([continuation(seed) for seed in seeds.values()])
    steps = decode(model, cache, embeddings.next_positions, tokens)
    for row, key in enumerate(seeds):
        length = embeddings.lengths[row]
        assert_near(np.array(logits[row, :length]), expected[f"{key}_prompt"])
        assert_near(steps[row], expected[f"{key}_steps"])


def test_images_change_the_logits() -> None:
    case = CASES["qwen2_vl"]
    model = build(case.config)
    inputs = prompt(case.config, case.prompts["one_image"], 1)
    seen, _ = prefill(model, embed_prompts(model, [inputs]), empty_cache(model, 1))
    other = with_patches(inputs, patches_of(inputs)[::-1].copy())
    unseen, _ = prefill(model, embed_prompts(model, [other]), empty_cache(model, 1))
    difference = np.abs(np.array(seen[0, -1] - unseen[0, -1])).max()
    assert difference > 0.1 * np.abs(np.array(seen)).max()

"""Prompts of one batch: what several begin with runs once, whatever else stands beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.running import counted
from tests.prompts.test_cache import Loaded, ask, picture
from vlmkit import PromptCache, batch_generate, generate, load


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def run(shapes: Loaded, model: Any, pictures: str, **params: Any) -> list[Any]:
    """One question per letter, on the picture that it names."""
    prompts = [ask(shapes, f"Count {place} things", 1) for place in range(len(pictures))]
    images = [picture(ord(letter)) for letter in pictures]
    response = batch_generate(
        model, shapes[1], images=images, prompts=prompts, max_tokens=2, **params
    )
    return response.results


@pytest.mark.parametrize("pictures", ["AABB", "ABAB", "ABBA"])
@pytest.mark.parametrize("is_known", [False, True])
def test_each_picture_of_a_batch_is_computed_once(
    shapes: Loaded, pictures: str, is_known: bool
) -> None:
    """All prompts share a short beginning, known or not; those on one picture share more."""
    model, passes = counted(shapes[0])
    seen = PromptCache() if is_known else None
    if is_known:
        generate(model, shapes[1], ask(shapes, "Hello"), max_tokens=1, prompt_cache=seen)
        passes.forwards.clear()
    results = run(shapes, model, pictures, prompt_cache=seen)
    heads, rest = passes.prefills[:-1], passes.prefills[-1]
    shared = 18 + 1  # the picture and its markers, at least
    assert len(heads) == 2
    assert all(rows == 1 and width >= shared for rows, width in heads)
    assert rest[0] == 4
    assert rest[1] < shared
    for place, result in enumerate(results):
        is_first = pictures.index(pictures[place]) == place
        assert (result.cached_tokens < shared) == is_first
        alone = generate(
            *shapes,
            ask(shapes, f"Count {place} things", 1),
            image=picture(ord(pictures[place])),
            max_tokens=2,
        )
        assert result.token_ids == alone.token_ids
        np.testing.assert_allclose(result.logprobs, alone.logprobs, atol=1e-4)


def test_a_long_beginning_is_computed_once_however_short_the_steps(shapes: Loaded) -> None:
    model, passes = counted(shapes[0])
    results = run(shapes, model, "AAAA", prefill_step_size=48)
    shared = min(result.cached_tokens for result in results[1:])
    assert shared > 18
    assert results[0].cached_tokens == 0
    assert sum(rows for rows, _ in passes.prefills) == 1 + 4

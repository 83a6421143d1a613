"""batch_generate: every row as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.engine.running import counted
from vlmkit import VlmkitError, batch_generate, generate

Loaded = tuple[Any, Any]
SIZES = [(112, 112), (140, 84), (56, 196), (300, 90), (112, 112), (84, 140)]


@pytest.fixture(scope="module")
def rows(ask: Callable[..., str], picture: Callable[..., Any]) -> tuple[list[str], list[Any]]:
    questions = [
        "How many objects are there?",
        "Is there a red circle?",
        "What number is shown?",
        "How many?",
    ]
    prompts, images = [], []
    for place in range(7):
        thinking = place % 2 == 0
        if place == 3:
            prompts.append(ask("Hello there, who are you?", num_images=0, thinking=thinking))
            images.append(None)
        elif place == 5:
            prompts.append(ask(questions[0], num_images=2, thinking=thinking))
            images.append([picture(0, SIZES[0]), picture(1, SIZES[1])])
        else:
            prompts.append(ask(questions[place % 4], thinking=thinking))
            images.append(picture(place, SIZES[place % len(SIZES)]))
    return prompts, images


@pytest.fixture(scope="module")
def single_runs(
    shapes: Loaded, rows: tuple[list[str], list[Any]]
) -> Callable[[dict[str, Any]], list[Any]]:
    """Every row on its own, computed once per set of parameters."""
    known: dict[str, list[Any]] = {}

    def run(params: dict[str, Any]) -> list[Any]:
        key = repr(params)
        if key not in known:
            known[key] = [
                generate(*shapes, prompt, image=image, max_tokens=20, **params)
                for prompt, image in zip(*rows, strict=True)
            ]
        return known[key]

    return run


@pytest.mark.parametrize(("batch_size", "group_by_shape"), [(3, True), (3, False), (16, False)])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 1.3, "seed": 11},
        {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2, "thinking_budget": 3},
        {"kv_bits": 8, "kv_group_size": 32},
        {"max_kv_size": 24},
    ],
    ids=["greedy", "seeded", "chain", "kv8", "rotating"],
)
def test_rows_equal_their_single_runs(
    shapes: Loaded,
    rows: tuple[list[str], list[Any]],
    single_runs: Callable[[dict[str, Any]], list[Any]],
    batch_size: int,
    group_by_shape: bool,
    params: dict[str, Any],
) -> None:
    prompts, images = rows
    response = batch_generate(
        *shapes,
        prompts=prompts,
        images=images,
        max_tokens=20,
        batch_size=batch_size,
        group_by_shape=group_by_shape,
        **params,
    )
    for single, result in zip(single_runs(params), response.results, strict=True):
        assert result.token_ids == single.token_ids
        assert result.text == single.text
        assert result.forced == single.forced
        assert result.finish_reason == single.finish_reason
    assert response.texts == [result.text for result in response.results]


@settings(
    max_examples=scaled(4),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(order=st.permutations(range(7)), batch_size=st.integers(1, 8))
def test_row_order_and_batch_size_never_change_a_draw(
    shapes: Loaded, rows: tuple[list[str], list[Any]], order: list[int], batch_size: int
) -> None:
    prompts, images = rows
    options: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "seed": 2}
    base = batch_generate(*shapes, prompts=prompts, images=images, **options)
    moved = batch_generate(
        *shapes,
        prompts=[prompts[i] for i in order],
        images=[images[i] for i in order],
        batch_size=batch_size,
        **options,
    )
    assert moved.texts == [base.texts[i] for i in order]


def test_parameters_per_prompt(shapes: Loaded, rows: tuple[list[str], list[Any]]) -> None:
    prompts, images = rows[0][:3], rows[1][:3]
    params: dict[str, list[Any]] = {
        "max_tokens": [3, 30, 9],
        "temperature": [0.0, 1.5, 0.7],
        "top_k": [0, 5, 0],
        "seed": [1, 2, 3],
        "thinking_budget": [2, None, 0],
        "eos_tokens": [["</think>"], None, []],
        "stop": [None, ["a"], None],
        "kv_bits": [None, 8, None],
        "kv_group_size": [64, 32, 64],
        "skip_special_tokens": [True, False, True],
    }
    response = batch_generate(*shapes, prompts=prompts, images=images, **params)
    for place in range(3):
        own = {name: values[place] for name, values in params.items()}
        single = generate(*shapes, prompts[place], image=images[place], **own)
        assert response.results[place].token_ids == single.token_ids
        assert response.texts[place] == single.text


def test_equal_rows_are_separate_samples(shapes: Loaded) -> None:
    options: dict[str, Any] = {"temperature": 5.0, "max_tokens": 16, "seed": 4}
    response = batch_generate(*shapes, prompts=["Hello"] * 4, **options)
    assert len(set(response.texts)) == 4
    for sample, result in enumerate(response.results):
        single = generate(*shapes, "Hello", sample=sample, **options)
        assert result.token_ids == single.token_ids
    assert [result.cached_tokens for result in response.results] == [
        0,
        *[result.prompt_tokens for result in response.results[1:]],
    ]
    assert response.stats.prompt_tps * response.stats.prompt_time == pytest.approx(
        response.results[0].prompt_tokens
    )


def test_statistics_and_image_sizes(shapes: Loaded, rows: tuple[list[str], list[Any]]) -> None:
    prompts, images = rows
    response = batch_generate(*shapes, prompts=prompts, images=images, max_tokens=4)
    flat = [
        one for entry in images if entry for one in (entry if isinstance(entry, list) else [entry])
    ]
    assert response.image_sizes == [(image.height, image.width) for image in flat]
    stats = response.stats
    assert stats.prompt_tokens == sum(result.prompt_tokens for result in response.results)
    assert stats.generation_tokens == sum(len(result.token_ids) for result in response.results)
    assert min(stats.prompt_time, stats.generation_time, stats.peak_memory) > 0
    untracked = batch_generate(
        *shapes, prompts=prompts, images=images, max_tokens=1, track_image_sizes=False
    )
    assert untracked.image_sizes is None


def test_an_empty_batch_is_an_empty_response(shapes: Loaded) -> None:
    response = batch_generate(*shapes, prompts=[])
    assert (response.texts, response.stats.generation_tokens) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "prompts"),
        ({"prompts": ["a", "b"], "images": ["x.png"]}, "1 entries for 2 prompts"),
        ({"prompts": ["a", "b"], "max_tokens": [1]}, "max_tokens is a list of 1"),
        ({"prompts": ["a"], "batch_size": 0}, "batch_size"),
        ({"prompts": ["a"], "audios": ["speech.wav"]}, "audio"),
        ({"prompts": ["a"], "temperature": -1.0}, "temperature"),
    ],
)
def test_bad_batches_are_refused(shapes: Loaded, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        batch_generate(*shapes, **arguments)
    assert "\n" not in str(caught.value)


def test_one_forward_per_step_for_rows_with_different_chains(shapes: Loaded) -> None:
    model, passes = counted(shapes[0])
    batch_generate(
        model,
        shapes[1],
        prompts=["Hello", "How many?", "Is there a"],
        temperature=[0.0, 2.0, 0.7],
        top_k=[0, 3, 0],
        max_tokens=5,
        eos_tokens=None,
        logit_bias=dict.fromkeys(shapes[1].eos_token_ids, -1000000000.0),
    )
    assert passes.steps == [3, 3, 3, 3]


def test_images_may_be_paths(
    shapes: Loaded, ask: Callable[..., str], sample_images: list[Path]
) -> None:
    prompts = [ask("How many objects are there?")] * 2
    response = batch_generate(
        *shapes, images=[str(sample_images[0]), sample_images[1]], prompts=prompts
    )
    assert len(response.texts) == 2

"""generate and stream_generate on the embedded model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import ASSETS
from tests.effort import scaled
from vlmkit import VlmkitError, generate, load, stream_generate

Ask = Callable[..., str]
Loaded = tuple[Any, Any]


def test_stream_concatenates_to_generate(
    shapes: Loaded, ask: Ask, sample_images: list[Path]
) -> None:
    prompt = ask("How many objects are there?", thinking=True)
    image = str(sample_images[0])
    whole = generate(*shapes, prompt, image=image, max_tokens=60)
    chunks = list(stream_generate(*shapes, prompt, image=[image], max_tokens=60))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.token for chunk in chunks] == whole.token_ids
    assert [chunk.generation_tokens for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert whole.finish_reason == "stop"
    assert whole.finish_kind == "eos"
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert whole.total_tokens == whole.prompt_tokens + whole.generation_tokens
    assert whole.forced == [False] * len(whole.token_ids)


def test_the_embedded_model_answers_its_samples(
    shapes: Loaded, ask: Ask, samples: list[dict[str, Any]], sample_images: list[Path]
) -> None:
    right = 0
    first_of_each_kind = list(zip(samples, sample_images, strict=True))[:13]
    for sample, image in first_of_each_kind:
        result = generate(
            *shapes,
            ask(sample["question"], thinking=True),
            image=image,
            max_tokens=160,
            skip_special_tokens=True,
        )
        full = generate(*shapes, ask(sample["question"], thinking=True), image=image)
        answer = full.text.split("</think>")[-1].strip()
        assert result.text.endswith(answer)
        right += answer == sample["answer"]
    assert right >= 0.8 * len(first_of_each_kind)


@pytest.mark.parametrize("budget", [0, 1, 2, 5, 9])
def test_thinking_budget_is_exact(
    shapes: Loaded, ask: Ask, sample_images: list[Path], budget: int
) -> None:
    _, processor = shapes
    end = processor.tokenizer.token_to_id("</think>")
    prompt = ask("How many objects are there?", thinking=True)
    result = generate(*shapes, prompt, image=sample_images[0], thinking_budget=budget)
    thinking = result.token_ids.index(end)
    assert thinking <= budget
    unlimited = generate(*shapes, prompt, image=sample_images[0])
    assert result.forced[thinking] == (unlimited.token_ids.index(end) > budget)
    if result.forced[thinking]:
        assert thinking == budget
    assert sum(result.forced) <= 1


def test_enable_thinking_switches_a_formatted_prompt(
    shapes: Loaded, ask: Ask, sample_images: list[Path]
) -> None:
    question = "How many objects are there?"
    closed, opened = ask(question), ask(question, thinking=True)
    assert closed != opened
    first = generate(*shapes, closed, image=sample_images[0], enable_thinking=True)
    second = generate(*shapes, opened, image=sample_images[0], enable_thinking=True)
    assert first.token_ids == second.token_ids
    assert "</think>" in first.text


def test_enable_thinking_needs_a_templated_prompt(shapes: Loaded) -> None:
    with pytest.raises(VlmkitError, match="apply_chat_template"):
        generate(*shapes, "no template here", enable_thinking=True)


def test_logprobs_are_normalised_float32_of_the_model(
    shapes: Loaded, ask: Ask, sample_images: list[Path]
) -> None:
    for chunk in stream_generate(
        *shapes, ask("How many objects are there?"), image=sample_images[0], temperature=2.0
    ):
        assert isinstance(chunk.logprobs, list)
        assert math.isclose(np.exp(np.array(chunk.logprobs)).sum(), 1.0, abs_tol=1e-5)


def test_same_seed_same_text_other_seed_other_text(shapes: Loaded, ask: Ask) -> None:
    prompt = ask("Hello", num_images=0)
    options: dict[str, Any] = {"temperature": 3.0, "max_tokens": 24}
    first = generate(*shapes, prompt, seed=5, **options).token_ids
    assert generate(*shapes, prompt, seed=5, **options).token_ids == first
    assert generate(*shapes, prompt, seed=6, **options).token_ids != first
    assert generate(*shapes, prompt, seed=5, sample=1, **options).token_ids != first


def test_forced_tokens_never_shift_later_draws(shapes: Loaded, ask: Ask) -> None:
    # A flat distribution makes each draw a function of its counter alone.
    prompt = ask("Hello", num_images=0, thinking=True)
    flat: dict[str, Any] = {"temperature": 1e6, "max_tokens": 12, "seed": 3}
    free = generate(*shapes, prompt, **flat).token_ids
    forced = generate(*shapes, prompt, thinking_budget=4, **flat)
    assert forced.forced.index(True) == 4
    same = [a == b for a, b in zip(free[5:], forced.token_ids[5:], strict=False)]
    assert sum(same) >= len(same) - 1


@pytest.mark.parametrize("step_size", [1, 3, 16, 2048])
def test_prefill_step_size_never_changes_the_tokens(
    shapes: Loaded, ask: Ask, sample_images: list[Path], step_size: int
) -> None:
    prompt = ask("How many objects are there?", thinking=True)
    base = generate(*shapes, prompt, image=sample_images[1])
    split = generate(*shapes, prompt, image=sample_images[1], prefill_step_size=step_size)
    assert split.token_ids == base.token_ids


def test_statistics(shapes: Loaded, ask: Ask) -> None:
    result = generate(*shapes, ask("Hello", num_images=0), max_tokens=1)
    assert result.generation_tokens == 1
    assert result.generation_tps == 0.0
    assert result.prompt_tps > 0
    assert result.cached_tokens == 0
    assert result.peak_memory > 0
    assert result.effective is not None
    assert result.effective["processor_backend"] == "native"


def test_stop_string_ends_the_text_before_it(
    shapes: Loaded, ask: Ask, sample_images: list[Path]
) -> None:
    prompt = ask("How many objects are there?", thinking=True)
    whole = generate(*shapes, prompt, image=sample_images[0]).text
    _, _, answer = whole.partition("</think>")
    stop = answer.strip()[:1]
    result = generate(*shapes, prompt, image=sample_images[0], stop=[stop])
    assert result.finish_reason == "stop"
    assert result.matched_stop == stop
    assert stop not in result.text.partition("</think>")[2]
    chunks = stream_generate(*shapes, prompt, image=sample_images[0], stop=[stop])
    assert "".join(chunk.text for chunk in chunks) == result.text


def test_eos_tokens_work_the_same_in_stream_and_generate(
    shapes: Loaded, ask: Ask, sample_images: list[Path]
) -> None:
    prompt = ask("How many objects are there?", thinking=True)
    options: dict[str, Any] = {"image": sample_images[0], "eos_tokens": ["</think>"]}
    whole = generate(*shapes, prompt, **options)
    chunks = list(stream_generate(*shapes, prompt, **options))
    assert whole.finish_reason == chunks[-1].finish_reason == "stop"
    assert [chunk.token for chunk in chunks] == whole.token_ids
    later = generate(*shapes, prompt, image=sample_images[0])
    assert len(later.token_ids) > len(whole.token_ids), "the eos tokens of one call leaked"


@settings(
    max_examples=scaled(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    temperature=st.floats(0.0, 3.0),
    top_p=st.floats(0.05, 1.0),
    top_k=st.integers(0, 600),
    min_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_sampling_parameters_give_valid_tokens(
    shapes: Loaded,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    seed: int,
) -> None:
    result = generate(
        *shapes,
        "How many?",
        max_tokens=4,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
    )
    assert 1 <= len(result.token_ids) <= 4
    assert all(0 <= token < shapes[0].config.vocab_size for token in result.token_ids)


def test_max_tokens_zero_gives_nothing(shapes: Loaded) -> None:
    result = generate(*shapes, "Hi", max_tokens=0)
    assert (result.text, result.token_ids, result.finish_reason) == ("", [], "length")


def test_generation_ends_at_the_context(tmp_path: Path) -> None:
    context = 120
    shutil.copytree(ASSETS, tmp_path, dirs_exist_ok=True)
    config = json.loads((ASSETS / "config.json").read_text())
    assert "max_position_embeddings" in config
    config["max_position_embeddings"] = context
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, processor = load(str(tmp_path))
    prompt = processor.tokenizer.encode("Hi") * context
    result = generate(model, processor, prompt[: context - 3], max_tokens=50, temperature=1e6)
    assert len(result.token_ids) == 3
    assert (result.finish_reason, result.finish_kind) == ("length", "context")
    with pytest.raises(VlmkitError, match=str(context)):
        generate(model, processor, prompt[: context + 1])


def test_verbose_prints_prompt_text_and_timing(
    shapes: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    result = generate(*shapes, "How many?", max_tokens=3, verbose=True)
    out = capsys.readouterr().out
    assert "How many?" in out
    assert result.text in out
    assert "tokens/s" in out

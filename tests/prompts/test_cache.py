"""A prompt cache: what it gives back is what a fresh prefill gives, and it keeps to its limit."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.effort import scaled
from tests.engine.running import counted
from vlmkit import (
    PipelineConfig,
    PromptCache,
    Request,
    VlmkitError,
    batch_generate,
    generate,
    load,
)
from vlmkit.api import stream_pipeline
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import DecodeState, KVSpec
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.prompts import Started
from vlmkit.resolve import prompt_store

Loaded = tuple[Any, Any]
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "affine": {"kv_bits": 8, "kv_group_size": 32},
    "rotating": {"max_kv_size": 24},
}


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (112, 112, 3), np.uint8), "RGB")


def ask(shapes: Loaded, question: str, num_images: int = 0) -> str:
    model, processor = shapes
    return apply_chat_template(processor, model.config, question, num_images=num_images)


@settings(max_examples=scaled(12), deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_any_order_of_prompts_gives_what_fresh_prefills_give(
    shapes: Loaded, data: st.DataObject, kind: str
) -> None:
    words = st.lists(st.sampled_from(["red ", "circle ", "How many? ", "Is "]), min_size=1)
    prompts = data.draw(st.lists(words.map("".join), min_size=2, max_size=5))
    seen = PromptCache()
    for prompt in prompts:
        limits = {"max_tokens": 6, **KINDS[kind]}
        fresh = generate(*shapes, prompt, **limits)
        again = generate(*shapes, prompt, prompt_cache=seen, **limits)
        assert again.token_ids == fresh.token_ids
        assert 0 <= again.cached_tokens <= again.prompt_tokens
        np.testing.assert_allclose(again.logprobs, fresh.logprobs, atol=1e-4)


def test_another_question_on_an_image_computes_only_what_is_new(shapes: Loaded) -> None:
    model, passes = counted(shapes[0])
    seen, image = PromptCache(), picture(1)
    first = ask(shapes, "Count the objects.", 1)
    generate(model, shapes[1], first, image=image, max_tokens=2, prompt_cache=seen)
    assert passes.encoded == [1]
    passes.forwards.clear()
    other = ask(shapes, "Is there a red circle?", 1)
    result = generate(model, shapes[1], other, image=image, max_tokens=2, prompt_cache=seen)
    assert passes.encoded == [1], "the image was encoded again"
    assert result.cached_tokens > 16
    ((_, width),) = passes.prefills
    assert width == result.prompt_tokens - result.cached_tokens
    assert result.token_ids == generate(*shapes, other, image=image, max_tokens=2).token_ids
    changed = generate(model, shapes[1], other, image=picture(2), max_tokens=2, prompt_cache=seen)
    assert changed.cached_tokens < 16, "another image is another prompt"


@pytest.mark.parametrize("max_tokens", [3, 40])
def test_the_next_turn_of_a_chat_goes_on_from_the_answer(shapes: Loaded, max_tokens: int) -> None:
    model, processor = shapes
    seen = PromptCache()
    chat = [{"role": "user", "content": "How many red circles are there?"}]
    prompt = apply_chat_template(processor, model.config, chat)
    first = generate(model, processor, prompt, max_tokens=max_tokens, prompt_cache=seen)
    ids = [*processor.encode(prompt), *first.token_ids, *processor.encode("Why?")]
    second = generate(model, processor, ids, max_tokens=3, prompt_cache=seen)
    assert second.cached_tokens >= first.total_tokens - 1
    assert second.token_ids == generate(model, processor, ids, max_tokens=3).token_ids


def test_equal_prompts_of_a_batch_share_one_prefill_at_any_length_and_batch_size(
    shapes: Loaded,
) -> None:
    text = "How many red circles are there? " * 400
    for num_tokens, step_size in ((1020, 2048), (1030, 2048), (40, 16)):
        prompt = shapes[1].decode(shapes[1].encode(text)[:num_tokens])
        for batch_size in (1, 2, 4):
            model, passes = counted(shapes[0])
            response = batch_generate(
                model,
                shapes[1],
                prompts=[prompt] * 4,
                max_tokens=2,
                batch_size=batch_size,
                prefill_step_size=step_size,
                temperature=1.0,
            )
            length = response.results[0].prompt_tokens
            assert [r.cached_tokens for r in response.results] == [0, length, length, length]
            assert sum(width for _, width in passes.prefills) == length


def test_prompts_that_alternate_are_computed_once_each(shapes: Loaded) -> None:
    one, two = ask(shapes, "Count."), ask(shapes, "Is there a red circle?")
    response = batch_generate(*shapes, prompts=[one, two] * 3, max_tokens=2, batch_size=1)
    cached = [result.cached_tokens for result in response.results]
    assert cached[0] == 0
    assert cached[2:] == [result.prompt_tokens for result in response.results[2:]]


def test_the_least_recently_used_goes_first(shapes: Loaded) -> None:
    texts = [f"{word} circles?" for word in ("red", "blue", "green")]
    seen = PromptCache()
    generate(*shapes, texts[0], max_tokens=1, prompt_cache=seen)
    per_prompt = seen.num_bytes
    small = PromptCache(max_bytes=int(2.5 * per_prompt))
    for text in (texts[0], texts[1], texts[0], texts[2]):
        generate(*shapes, text, max_tokens=1, prompt_cache=small)
        assert small.num_bytes <= 2.5 * per_prompt
    first, second = (generate(*shapes, texts[n], max_tokens=1, prompt_cache=small) for n in (0, 1))
    assert first.cached_tokens == first.prompt_tokens
    assert second.cached_tokens < second.prompt_tokens
    small.clear()
    assert len(small) == small.num_bytes == 0


def test_what_belongs_to_other_settings_is_left_alone(shapes: Loaded) -> None:
    seen = PromptCache()
    generate(*shapes, "How many?", max_tokens=1, prompt_cache=seen)
    other = generate(*shapes, "How many?", max_tokens=1, max_kv_size=8, prompt_cache=seen)
    assert other.cached_tokens == 0
    twin, _ = counted(shapes[0])
    assert (
        generate(twin, shapes[1], "How many?", max_tokens=1, prompt_cache=seen).cached_tokens == 0
    )


@pytest.mark.parametrize("value", ["yes", 3, {}])
def test_no_prompt_cache_is_refused(shapes: Loaded, value: Any) -> None:
    for function, prompt in ((generate, "Hi"), (batch_generate, None)):
        arguments = {"prompts": ["Hi"]} if prompt is None else {"prompt": prompt}
        with pytest.raises(VlmkitError, match=r"prompt_cache is of type .*vlmkit\.PromptCache"):
            function(*shapes, prompt_cache=value, **arguments)


@pytest.mark.parametrize("value", [-1, 2.5, "1", True])
def test_a_limit_that_is_no_number_of_bytes_is_refused(value: Any) -> None:
    with pytest.raises(VlmkitError, match=f"max_bytes is {value!r}; it must be 0 or more, or None"):
        PromptCache(max_bytes=value)


def test_keeping_prompts_copies_no_cache_at_a_decode_step(shapes: Loaded) -> None:
    prompt = Request(tuple(shapes[1].encode("How many red circles are there? " * 400)[:1900]))
    pipeline = PipelineConfig(stopping=[{"kind": "max_tokens", "max_tokens": 20}])
    seen = PromptCache()
    stream = stream_pipeline(*shapes, prompt, pipeline, prompt_cache=seen)
    next(stream)
    next(stream)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    for _, _ in zip(range(10), stream, strict=False):
        assert mx.get_peak_memory() - before < seen.num_bytes / 4


def test_a_kept_prompt_holds_no_pixels(shapes: Loaded) -> None:
    seen = PromptCache()
    prompt = ask(shapes, "Count the objects.", 1)
    generate(*shapes, prompt, image=picture(1), max_tokens=2, prompt_cache=seen)
    owner = prompt_store(seen, shapes[0], PipelineConfig()).owner
    held = [medium for entry in seen.prompts(owner) for medium in entry.inputs.media]
    assert held
    assert all(medium.data.nbytes == 0 and medium.digest for medium in held)


def test_threads_share_a_prompt_cache(shapes: Loaded) -> None:
    """Bookkeeping alone: the limit drops entries that other threads are looking at."""
    inputs = [Inputs.of(np.arange(n, n + 12, dtype=np.int32)) for n in range(40)]
    cache = build_cache(DenseConfig(), [KVSpec(1, 4, 4)], 1, mx.float32)
    entries = [Started(one, DecodeState(cache, (0,)), None) for one in inputs]
    seen = PromptCache(max_bytes=20)

    def work(first: int) -> None:
        for n in range(2000):
            seen.put("owner", entries[(first + n) % 40])
            seen.find("owner", inputs[n % 40], ())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert seen.num_bytes == 4 * len(seen) <= 20

"""Searches in the decode loop: what they find, and that they leave other rows alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import vlmkit
from tests.search.cases import ALL, NUM_PROMPTS, PAD, config_of, golden, ours, prompt
from tests.search.test_transformers import LAST_STEP
from tests.search.toy import VOCABULARY, Found, Process, Tokens, qwen2, run, without_cache
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect, prepare_inputs
from vlmkit.errors import VlmkitError
from vlmkit.models.lm_adapter import LmModel
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult
from vlmkit.sampling import build_chain
from vlmkit.search import SearchConfig, build_search

SAMPLES = Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples"
BEAM = {"kind": "beam", "num_beams": 3, "num_return": 3}
DIVERSE = {
    "kind": "diverse_beam",
    "num_beams": 4,
    "num_groups": 2,
    "diversity_penalty": 0.7,
    "num_return": 4,
}
CONTRASTIVE = {"kind": "contrastive_search", "top_k": 3, "alpha": 0.5}
SEARCHES = [BEAM, DIVERSE, CONTRASTIVE]
KINDS = [search["kind"] for search in SEARCHES]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=KINDS)


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


@pytest.fixture(scope="module")
def tiny(shapes: tuple[Any, Any]) -> tuple[LmModel, Any]:
    """The small random Qwen2 with the tokenizer of `shapes`."""
    return qwen2(), dataclasses.replace(shapes[1], eos_token_ids=frozenset([5, 9]))


def stops(max_tokens: int, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"kind": "max_tokens", "max_tokens": max_tokens}, {"kind": "eos"}, *more]


def generate(model: Any, processor: Any, request: Request, **pipeline: Any) -> GenerationResult:
    return collect(stream_pipeline(model, processor, request, PipelineConfig(**pipeline)))


def answers(result: GenerationResult) -> list[tuple[Tokens, float | None]]:
    return [(tuple(one.token_ids), one.score) for one in (result, *result.alternatives)]


def assert_found(result: GenerationResult, expected: Sequence[tuple[Any, float | None]]) -> None:
    found = answers(result)
    assert [ids for ids, _ in found] == [tuple(ids) for ids, _ in expected]
    for (_, score), (_, wanted) in zip(found, expected, strict=True):
        if wanted is not None:
            assert score == pytest.approx(wanted, rel=1e-4, abs=1e-4)


PLAIN = [
    (kind, name)
    for kind, cases in ALL.items()
    for name, case in cases.items()
    if "repetition_penalty" not in case or "renormalize_logits" in case  # as ours always does
]


@pytest.mark.parametrize(("kind", "name"), PLAIN, ids=[": ".join(each) for each in PLAIN])
def test_same_as_transformers(
    shapes: tuple[Any, Any], kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, eos = ALL[kind][name], ALL[kind][name]["eos_token_id"]
    processor = dataclasses.replace(shapes[1], eos_token_ids=frozenset(eos))
    pipeline = PipelineConfig(
        search=config_of(kind, case),
        sampling=[
            {
                "kind": "repetition_penalty",
                "penalty": case.get("repetition_penalty", 1.0),
                "context_size": None,
            },
        ],
        stopping=stops(case["max_new_tokens"]),
    )
    rows = [(Request(prompt(seed)), pipeline) for seed in range(NUM_PROMPTS)]
    model = qwen2(case["scale"])
    project = model.logits
    is_pad = mx.arange(VOCABULARY) == PAD
    monkeypatch.setattr(model, "logits", lambda h: mx.where(is_pad, -1e4, project(h)))
    results = batch_pipeline(model, processor, rows, batch_size=4).results
    for seed, result in enumerate(results):
        if kind != "diverse_beam":
            assert_found(result, golden(kind)[name][seed])
        elif (name, seed) not in LAST_STEP:
            scores = [score for _, score in golden(kind)[name][seed]]
            assert [s for _, s in answers(result)] == pytest.approx(scores, abs=1e-4)
    assert_found(results[1], ours(kind, case, 1).best)


def chained(stages: Sequence[dict[str, Any]]) -> Process:
    """What a sampler chain that sees whole rows leaves of logprobs."""
    chain = build_chain(PipelineConfig(search=BEAM, sampling=stages).sampling)

    def process(rows: Sequence[Tokens], logprobs: mx.array) -> mx.array:
        state = chain.init([np.array(row, np.int32) for row in rows], logprobs.shape[-1])
        kept = chain.apply(state, logprobs, None)
        return kept - mx.logsumexp(kept, axis=-1, keepdims=True)

    return process


@each_search
def test_stages_with_a_history_follow_their_rows(
    tiny: tuple[LmModel, Any], search: dict[str, Any]
) -> None:
    stages = [
        {"kind": "frequency_penalty", "penalty": 0.8, "include_prompt": True},
        {"kind": "no_repeat_ngram", "n": 2},
        {"kind": "temperature", "temperature": 0.8},
        {"kind": "min_p", "p": 0.02},
    ]
    pipeline = PipelineConfig(search=search, sampling=stages, stopping=stops(14))
    for seed in range(4):
        expected = run(
            build_search(pipeline.search),
            without_cache(tiny[0]),
            prompt(seed),
            max_tokens=14,
            eos=(5, 9),
            process=chained(stages),
        )
        result = collect(stream_pipeline(*tiny, Request(prompt(seed)), pipeline))
        assert_found(result, expected.best)


def reference(
    model: Any, processor: Any, request: Request, search: SearchConfig, max_tokens: int
) -> Found:
    """Search without a cache; images are encoded anew for every token."""
    inputs = prepare_inputs(model, processor, request, PipelineConfig())

    def extended(row: Tokens) -> Any:
        return inputs._replace(token_ids=np.array(row, np.int32))

    return run(
        build_search(search),
        without_cache(model, extended),
        [int(each) for each in inputs.token_ids],
        max_tokens=max_tokens,
        eos=tuple(processor.eos_token_ids),
    )


def question(shapes: tuple[Any, Any], *, thinking: bool = False) -> Request:
    model, processor = shapes
    text = apply_chat_template(
        processor, model.config, "Describe this image.", num_images=1, enable_thinking=thinking
    )
    return Request(text, (SAMPLES / "describe.png",))


@each_search
def test_an_image_is_searched_as_without_a_cache(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    pipeline = PipelineConfig(search=search, stopping=stops(8))
    expected = reference(*shapes, question(shapes), pipeline.search, 8)
    result = collect(stream_pipeline(*shapes, question(shapes), pipeline))
    assert_found(result, expected.best)


CACHES = [
    {"kind": "dense"},
    {"kind": "affine", "bits": 8, "group_size": 32},
    {"kind": "rotating", "max_size": 64, "keep": 2},
]


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache["kind"])
def test_a_batch_of_searches_and_sampled_rows_equals_single_runs(
    shapes: tuple[Any, Any], cache: dict[str, Any]
) -> None:
    sampled = {"sampling": [{"kind": "temperature", "temperature": 1.0}], "seed": 3}
    rows = []
    for place in range(3):
        request = question(shapes, thinking=place == 1)
        for ways in [*({"search": search} for search in SEARCHES), sampled, {}]:
            pipeline = PipelineConfig(cache=cache, stopping=stops(6 + 4 * place), **ways)
            rows.append((request, pipeline))
    together = batch_pipeline(*shapes, rows, batch_size=4).results
    for (request, pipeline), result in zip(rows, together, strict=True):
        alone = collect(stream_pipeline(*shapes, request, pipeline))
        assert_found(result, answers(alone))
        assert result.text == alone.text
        assert result.finish_kind == alone.finish_kind


@each_search
def test_a_stream_is_the_whole_result(tiny: tuple[LmModel, Any], search: dict[str, Any]) -> None:
    pipeline = PipelineConfig(search=search, stopping=stops(10))
    whole = collect(stream_pipeline(*tiny, Request(prompt(1)), pipeline))
    steps = list(stream_pipeline(*tiny, Request(prompt(1)), pipeline))
    assert [step.token for step in steps] == whole.token_ids
    assert "".join(step.text for step in steps) == whole.text
    assert [step.generation_tokens for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.finish_reason is None for step in steps[:-1])
    assert steps[-1].finish_reason is not None
    assert all(not step.alternatives for step in steps[:-1])


def test_contrastive_search_gives_each_token_as_soon_as_it_is_certain(
    tiny: tuple[LmModel, Any],
) -> None:
    model, processor = tiny
    calls = []

    class Counting(LmModel):
        def logits(self, hidden: mx.array) -> mx.array:
            calls.append(hidden.shape)
            return super().logits(hidden)

    counting = Counting(model.lm, {"model_type": "qwen2", "vocab_size": 40})
    pipeline = PipelineConfig(search=CONTRASTIVE, stopping=stops(6))
    seen = []
    for _ in stream_pipeline(counting, processor, Request(prompt(1)), pipeline):
        seen.append(len(calls))
    # The prompt's logits, then one pass that ranks each token's candidates.
    assert seen == [2, 3, 4, 5, 6, 7]


@each_search
def test_the_thinking_budget_holds_on_every_row(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    processor = shapes[1]
    (close,) = processor.tokenizer.encode("</think>")
    request = question(shapes, thinking=True)
    for budget in (0, 3):
        stopping = stops(24, {"kind": "thinking_budget", "budget": budget})
        result = generate(*shapes, request, search=search, stopping=stopping)
        for one in (result, *result.alternatives):
            assert one.token_ids.count(close) == 1
            assert one.token_ids.index(close) <= budget + 1
            assert len(one.forced) == len(one.token_ids)
        assert any(any(one.forced) for one in (result, *result.alternatives))


@each_search
def test_a_stop_string_ends_its_hypothesis_alone(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    stopping = stops(16, {"kind": "stop_sequences", "sequences": [","]})
    plain = generate(*shapes, question(shapes), search=search, stopping=stops(16))
    result = generate(*shapes, question(shapes), search=search, stopping=stopping)
    assert "," in plain.text
    for one in (result, *result.alternatives):
        assert "," not in one.text
    assert "stop_sequences" in {one.finish_kind for one in (result, *result.alternatives)}


@each_search
@pytest.mark.parametrize("max_tokens", [1, 2])
def test_few_tokens(tiny: tuple[LmModel, Any], search: dict[str, Any], max_tokens: int) -> None:
    result = generate(*tiny, Request(prompt(1)), search=search, stopping=stops(max_tokens))
    for one in (result, *result.alternatives):
        assert one.generation_tokens == len(one.token_ids) == max_tokens
        assert one.finish_reason == "length"


@each_search
def test_the_end_of_the_context_ends_every_row(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    base = qwen2()
    values = {"model_type": "qwen2", "vocab_size": 40, "max_position_embeddings": 16}
    model = LmModel(base.lm, values)
    processor = dataclasses.replace(shapes[1], eos_token_ids=frozenset())
    ids = prompt(1)
    result = generate(model, processor, Request(ids), search=search, stopping=stops(50))
    for one in (result, *result.alternatives):
        assert len(ids) + len(one.token_ids) == 16
        assert one.finish_kind == "context"


@each_search
def test_the_size_of_prefill_steps_changes_nothing(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    config = {"search": search, "stopping": stops(6)}
    whole = generate(*shapes, question(shapes), **config)
    parts = generate(*shapes, question(shapes), prefill={"step_size": 5}, **config)
    assert_found(parts, answers(whole))


@each_search
def test_mirostat_follows_each_row(tiny: tuple[LmModel, Any], search: dict[str, Any]) -> None:
    model, processor = tiny
    stages = [{"kind": "mirostat_v2", "tau": 1.5, "eta": 0.6}]
    chain = build_chain(PipelineConfig(search=BEAM, sampling=stages).sampling)
    ids = tuple(prompt(2))
    forward = without_cache(model)

    def process(rows: Sequence[Tokens], logprobs: mx.array) -> mx.array:
        kept = []
        for row in rows:
            state = chain.init([np.array(ids, np.int32)], 40)
            for place in range(len(ids), len(row)):
                logits, _ = forward([row[:place]])
                state, _ = chain.sample(state, logits, mx.array([[0.5]]))
                state = chain.update(state, mx.array([row[place]], mx.int32))
            kept.append(chain.apply(state, forward([row])[0], mx.array([[0.5]])))
        logits = mx.concatenate(kept)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    pipeline = PipelineConfig(search=search, sampling=stages, stopping=stops(8))
    expected = run(
        build_search(pipeline.search), forward, ids, max_tokens=8, eos=(5, 9), process=process
    )
    assert_found(collect(stream_pipeline(model, processor, Request(ids), pipeline)), expected.best)


def test_a_search_without_any_token_left_is_one_clear_error(tiny: tuple[LmModel, Any]) -> None:
    pipeline = PipelineConfig(
        search=BEAM,
        sampling=[
            {"kind": "allowed_tokens", "token_ids": [3, 4]},
            {"kind": "no_repeat_ngram", "n": 2},
        ],
        stopping=stops(14),
    )
    with pytest.raises(VlmkitError, match=r"no token can be drawn after \d tokens"):
        collect(stream_pipeline(*tiny, Request([1, 2]), pipeline))


def test_a_row_without_any_token_left_ends_and_the_others_go_on(
    tiny: tuple[LmModel, Any],
) -> None:
    # After token 3 nothing may follow: the n-gram rule knows all pairs that begin with it.
    pairs = [token for other in range(VOCABULARY) for token in (3, other)]
    pipeline = PipelineConfig(
        search=BEAM,
        sampling=[
            {"kind": "logit_bias", "bias": {3: 3.0, 5: -100.0, 9: -100.0}},
            {"kind": "no_repeat_ngram", "n": 2},
        ],
        stopping=stops(4),
    )
    result = collect(stream_pipeline(*tiny, Request([*pairs, 1, 2]), pipeline))
    assert result.generation_tokens == 4
    assert 3 not in result.token_ids[:-1]

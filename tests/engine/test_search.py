"""Searches in the decode loop: what they find."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.engine.searched import (
    BEAM,
    answers,
    assert_found,
    each_search,
    question,
    stops,
)
from tests.search.cases import ALL, NUM_PROMPTS, PAD, config_of, golden, ours, prompt
from tests.search.test_transformers import LAST_STEP
from tests.search.toy import VOCABULARY, Found, Process, Tokens, qwen2, run, without_cache
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect, prepare_inputs
from vlmkit.models.lm_adapter import LmModel
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import build_chain
from vlmkit.search import SearchConfig, build_search

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


@each_search
def test_an_image_is_searched_as_without_a_cache(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    pipeline = PipelineConfig(search=search, stopping=stops(8))
    expected = reference(*shapes, question(shapes), pipeline.search, 8)
    result = collect(stream_pipeline(*shapes, question(shapes), pipeline))
    assert_found(result, expected.best)


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

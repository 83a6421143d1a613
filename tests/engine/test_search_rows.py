"""Searches in the decode loop: they leave other rows alone, and a stream gives all of them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from tests.cache.kinds import few_rounds
from tests.engine.searched import (
    CONTRASTIVE,
    SEARCHES,
    answers,
    assert_found,
    each_search,
    generate,
    question,
    stops,
)
from tests.search.cases import prompt
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect
from vlmkit.models.lm_adapter import LmModel
from vlmkit.pipeline import PipelineConfig

CACHES = [
    {"kind": "dense"},
    {"kind": "affine", "bits": 8, "group_size": 32},
    {"kind": "rotating", "max_size": 64, "keep": 2},
    {"kind": "kvarn", "block_size": 16},
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
    with few_rounds(1):
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
def test_the_size_of_prefill_steps_changes_nothing(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    config = {"search": search, "stopping": stops(6)}
    whole = generate(*shapes, question(shapes), **config)
    parts = generate(*shapes, question(shapes), prefill={"step_size": 5}, **config)
    assert_found(parts, answers(whole))

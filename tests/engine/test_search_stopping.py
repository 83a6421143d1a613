"""Searches in the decode loop: each of their rows stops by itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.engine.searched import (
    BEAM,
    each_search,
    generate,
    question,
    stops,
)
from tests.search.cases import prompt
from tests.search.toy import VOCABULARY, qwen2
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.models.lm_adapter import LmModel
from vlmkit.pipeline import PipelineConfig


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

"""Grammars in the decode loop: every way to generate keeps to them, and other rows don't notice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

SAMPLES = Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples"
GREEDY = {"kind": "greedy"}
HOT = {"kind": "temperature", "temperature": 2.0}
DIGITS = {"kind": "grammar", "regex": "[0-9] of them"}
SCHEMA = {
    "type": "object",
    "properties": {
        "shape": {"enum": ["circle", "star"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
    },
    "required": ["shape", "count"],
    "additionalProperties": False,
}
JSON = {"kind": "grammar", "json_schema": {**SCHEMA, "x-guidance": {"whitespace_flexible": False}}}
COUNT = ("How many objects are red or stars?", "count_or.png")


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def ask(shapes: tuple[Any, Any], *, think: bool = False, sample: int = 0) -> Request:
    question, image = COUNT
    model, processor = shapes
    prompt = apply_chat_template(
        processor, model.config, question, num_images=1, enable_thinking=think
    )
    return Request(prompt, (str(SAMPLES / image),), sample=sample)


def pipeline(*sampling: dict[str, Any], **fields: Any) -> PipelineConfig:
    stops = [{"kind": "max_tokens", "max_tokens": 60}, {"kind": "eos"}]
    stops += fields.pop("stopping", [])
    return PipelineConfig(sampling=list(sampling), stopping=stops, **fields)


def generate(shapes: tuple[Any, Any], request: Request, config: PipelineConfig) -> GenerationResult:
    return collect(stream_pipeline(*shapes, request, config))


def fits(text: str) -> bool:
    value = json.loads(text)
    return (
        set(value) == {"shape", "count"}
        and value["shape"] in ("circle", "star")
        and type(value["count"]) is int
        and 0 <= value["count"] <= 20
    )


@pytest.mark.parametrize("seed", range(4))
def test_hot_samples_keep_to_the_schema(shapes: tuple[Any, Any], seed: int) -> None:
    result = generate(shapes, ask(shapes), pipeline(JSON, HOT, seed=seed))
    assert result.finish_reason == "stop"
    assert fits(result.text)


def test_thinking_is_as_without_the_grammar_and_the_answer_is_not(
    shapes: tuple[Any, Any],
) -> None:
    request = ask(shapes, think=True)
    free = generate(shapes, request, pipeline(GREEDY))
    held = generate(shapes, request, pipeline(DIGITS, GREEDY))
    thought, end, answer = held.text.partition("</think>")
    assert free.text.startswith(thought + end)
    assert not re.fullmatch("[0-9] of them", free.text.partition("</think>")[2])
    assert re.fullmatch("[0-9] of them", answer)


@pytest.mark.parametrize("transition", [None, "Now.\n</think>.\n\n"], ids=["plain", "text after"])
def test_a_thinking_budget_closes_the_block_and_the_answer_follows(
    shapes: tuple[Any, Any], transition: str | None
) -> None:
    budget = {"kind": "thinking_budget", "budget": 3, "transition": transition}
    config = pipeline(JSON, GREEDY, stopping=[budget])
    text = generate(shapes, ask(shapes, think=True), config).text
    _, _, answer = text.partition("</think>")
    assert fits(answer.removeprefix(".\n\n"))
    assert answer.startswith(".\n\n") == (transition is not None)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_rows_of_a_batch_are_as_alone(shapes: tuple[Any, Any], batch_size: int) -> None:
    rows = [
        (ask(shapes), pipeline(JSON, GREEDY)),
        (ask(shapes), pipeline(GREEDY)),
        (ask(shapes, think=True), pipeline(DIGITS, GREEDY)),
        (ask(shapes), pipeline({"kind": "grammar", "regex": "(two|three)!"}, HOT, seed=3)),
        (ask(shapes, sample=1), pipeline(JSON, HOT, seed=3)),
        (ask(shapes, sample=2), pipeline(JSON, HOT, seed=3)),
        (ask(shapes, think=True), pipeline(JSON, GREEDY)),
    ]
    together = batch_pipeline(*shapes, rows, batch_size=batch_size).results
    for (request, config), result in zip(rows, together, strict=True):
        assert result.token_ids == generate(shapes, request, config).token_ids


def test_a_search_keeps_to_the_grammar(shapes: tuple[Any, Any]) -> None:
    beam = {"kind": "beam", "num_beams": 3, "num_return": 3}
    result = generate(shapes, ask(shapes), pipeline(DIGITS, search=beam))
    texts = [one.text for one in (result, *result.alternatives)]
    assert len(set(texts)) == 3
    assert all(re.fullmatch("[0-9] of them", text) for text in texts)


def test_a_complete_answer_ends_by_the_models_own_end(shapes: tuple[Any, Any]) -> None:
    result = generate(shapes, ask(shapes), pipeline({"kind": "grammar", "regex": "no"}, GREEDY))
    assert result.text == "no"
    assert result.token_ids[-1] in shapes[1].eos_token_ids
    assert result.finish_reason == "stop"


def test_a_bad_grammar_is_found_before_anything_is_computed(shapes: tuple[Any, Any]) -> None:
    with pytest.raises(VlmkitError, match=r'grammar: regex "\[": unclosed character class'):
        stream_pipeline(*shapes, ask(shapes), pipeline({"kind": "grammar", "regex": "["}))

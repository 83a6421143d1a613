"""Where a search's rows end: at the first token, by force, or with nothing left to draw."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect
from vlmkit.engine.rows import RowState
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

IMAGE = Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples" / "describe.png"
SEARCHES = [
    {"kind": "beam", "num_beams": 3, "num_return": 3},
    {"kind": "diverse_beam", "num_beams": 4, "num_groups": 2, "diversity_penalty": 0.7},
    {"kind": "contrastive_search", "top_k": 3, "alpha": 0.5},
]
NONE_LEFT = [
    {"kind": "allowed_tokens", "token_ids": [18]},
    {"kind": "suppress_tokens", "token_ids": [18]},
]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search["kind"])


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def question(shapes: tuple[Any, Any], *, thinking: bool = False) -> Request:
    model, processor = shapes
    text = apply_chat_template(
        processor, model.config, "Describe this image.", num_images=1, enable_thinking=thinking
    )
    return Request(text, (IMAGE,))


def pipeline(max_tokens: int, *more: dict[str, Any], **ways: Any) -> PipelineConfig:
    stopping = [{"kind": "max_tokens", "max_tokens": max_tokens}, {"kind": "eos"}, *more]
    return PipelineConfig(stopping=stopping, **ways)


def generate(shapes: tuple[Any, Any], request: Request, config: PipelineConfig) -> GenerationResult:
    return collect(stream_pipeline(*shapes, request, config))


@each_search
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_search_of_one_token_leaves_its_place_to_others(
    shapes: tuple[Any, Any], search: dict[str, Any], batch_size: int
) -> None:
    rows = [(question(shapes), pipeline(count, search=search)) for count in (1, 1, 3)]
    together = batch_pipeline(*shapes, rows, batch_size=batch_size).results
    for row, result in zip(rows, together, strict=True):
        alone = generate(shapes, *row)
        assert result.token_ids == alone.token_ids
        assert [one.token_ids for one in result.alternatives] == [
            one.token_ids for one in alone.alternatives
        ]


@each_search
def test_a_forced_token_needs_nothing_of_the_chain(
    shapes: tuple[Any, Any], search: dict[str, Any]
) -> None:
    budget = {"kind": "thinking_budget", "budget": 0}
    config = pipeline(1, budget, search=search, sampling=NONE_LEFT)
    assert generate(shapes, question(shapes, thinking=True), config).text == "</think>"


def test_a_finished_row_needs_nothing_of_the_chain(shapes: tuple[Any, Any]) -> None:
    """Contrastive search runs it through the model once more, to see its hidden state."""
    grammar = {"kind": "grammar", "regex": "[a-z]+ of them"}
    config = pipeline(1, search=SEARCHES[2], sampling=[{"kind": "min_p", "p": 0.3}, grammar])
    assert generate(shapes, question(shapes), config).text == "purple"


def test_a_search_keeps_no_more_than_the_steps_of_what_is_behind_it(
    shapes: tuple[Any, Any],
) -> None:
    config = pipeline(80, search=SEARCHES[2])
    config = config.model_copy(update={"stopping": config.stopping[:1]})
    for number, _ in enumerate(stream_pipeline(*shapes, question(shapes), config)):
        if number == 60:
            gc.collect()  # what tests before this one left in cycles
            assert sum(type(one) is RowState for one in gc.get_objects()) < 20

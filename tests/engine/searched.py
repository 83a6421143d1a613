"""What the tests of searches generate with, and how they compare results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.search.toy import Tokens
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request, collect
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

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
EXTERNAL = {
    "kind": "external",
    "factory": "experiments.own_search:first_tokens",
    "config": {"k": 3},
}
SEARCHES = [BEAM, DIVERSE, CONTRASTIVE, EXTERNAL]
KINDS = [search["kind"] for search in SEARCHES]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=KINDS)


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


def question(shapes: tuple[Any, Any], *, thinking: bool = False) -> Request:
    model, processor = shapes
    text = apply_chat_template(
        processor, model.config, "Describe this image.", num_images=1, enable_thinking=thinking
    )
    return Request(text, (SAMPLES / "describe.png",))

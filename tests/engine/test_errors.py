"""A row that cannot go on ends with an error; its neighbours do not notice, a single one raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from vlmkit import VlmkitError, load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect
from vlmkit.pipeline import PipelineConfig
from vlmkit.stages import Decision, SamplerStage, StoppingCriterion

Loaded = tuple[Any, Any]
LIMIT = {"kind": "max_tokens", "max_tokens": 6}


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def raising_stop(after: int) -> StoppingCriterion:
    """A criterion that breaks at a token."""

    def step(state: int, event: Any) -> tuple[int, Decision]:
        if event.num_tokens == after:
            raise ZeroDivisionError("a criterion's own mistake")
        return state, Decision()

    return StoppingCriterion("raising", lambda prompt: (0, Decision()), step)


def raising_stage(after: int) -> SamplerStage:
    """A stage that breaks at a draw, which counts its updates."""

    def apply(state: mx.array, logits: mx.array, uniform: Any) -> mx.array:
        if int(mx.max(state).item()) == after:
            raise ZeroDivisionError("a stage's own mistake")
        return logits

    return SamplerStage(
        "raising",
        lambda prompts, size: mx.zeros((len(prompts),), mx.int32),
        apply,
        lambda state, ids: state + 1,
    )


def broken_after(after: int) -> SamplerStage:
    """A stage whose logits are NaN from a draw on."""
    stage = raising_stage(-1)
    return stage._replace(
        apply=lambda state, logits, uniform: mx.where(state[:, None] >= after, mx.nan, logits)
    )


def own(factory: Callable[..., Any], after: int) -> dict[str, Any]:
    here = f"{__name__}:{factory.__name__}"
    return {"kind": "external", "factory": here, "config": {"after": after}}


FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str, int]] = {
    "criterion": ({"stopping": [LIMIT, own(raising_stop, 3)]}, ZeroDivisionError, "own mistake", 2),
    "stage": ({"sampling": [own(raising_stage, 3)]}, ZeroDivisionError, "own mistake", 3),
    "first stage": ({"sampling": [own(raising_stage, 0)]}, ZeroDivisionError, "own mistake", 0),
    "nan": ({"sampling": [own(broken_after, 2)]}, VlmkitError, "no token can be drawn", 2),
    "nothing left": (
        {
            "sampling": [
                {"kind": "allowed_tokens", "token_ids": [3]},
                {"kind": "suppress_tokens", "token_ids": [3]},
            ]
        },
        VlmkitError,
        "no token can be drawn after 0 tokens",
        0,
    ),
    "search": (
        {"sampling": [own(broken_after, 2)], "search": {"kind": "beam", "num_beams": 2}},
        VlmkitError,
        "no token can be drawn",
        0,
    ),
    "criterion in a search": (
        {"stopping": [LIMIT, own(raising_stop, 3)], "search": {"kind": "beam", "num_beams": 2}},
        ZeroDivisionError,
        "own mistake",
        0,
    ),
    "under a contrast": (
        {"sampling": [own(broken_after, 1)], "contrast": {"kind": "cfg"}},
        VlmkitError,
        "no token can be drawn after 1 tokens.*contrast may also cut",
        1,
    ),
}


def good(seed: int, **more: Any) -> PipelineConfig:
    return PipelineConfig(
        stopping=[LIMIT], sampling=[{"kind": "temperature", "temperature": 1.3}], seed=seed, **more
    )


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_bad_row_ends_and_its_neighbours_go_on(
    shapes: Loaded, name: str, batch_size: int
) -> None:
    settings, _, message, num_tokens = FAULTS[name]
    contrast = {"contrast": settings["contrast"]} if "contrast" in settings else {}
    bad = PipelineConfig(**{"stopping": [LIMIT], **settings})
    request = Request("How many red circles?")
    pipelines = [good(1, **contrast), bad, good(2, **contrast)]
    results = batch_pipeline(
        *shapes, [(request, one) for one in pipelines], batch_size=batch_size
    ).results
    assert results[1].finish_reason == results[1].finish_kind == "error"
    assert results[1].error is not None
    assert re.search(message, results[1].error)
    assert len(results[1].token_ids) == num_tokens
    for place in (0, 2):
        alone = collect(stream_pipeline(*shapes, request, pipelines[place]))
        assert results[place].token_ids == alone.token_ids
        assert results[place].error is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_single_request_raises(shapes: Loaded, name: str) -> None:
    settings, kind, message, num_tokens = FAULTS[name]
    pipeline = PipelineConfig(**{"stopping": [LIMIT], **settings})
    stream = stream_pipeline(*shapes, Request("How many red circles?"), pipeline)
    found: list[Any] = []
    with pytest.raises(kind, match=message):
        found.extend(stream)
    assert sum(len(result.token_ids) for result in found) == num_tokens

"""One prompt under many pipelines and seeds: equal to generating each alone, computed once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.running import counted
from tests.prompts.test_cache import Loaded, ask, picture
from vlmkit import (
    PipelineConfig,
    PromptCache,
    Request,
    VlmkitError,
    branch,
    load,
    start,
    stream_branch,
)
from vlmkit.api import stream_pipeline
from vlmkit.contrast.icd import DISTURBANCE
from vlmkit.engine import collect

STOP = [{"kind": "max_tokens", "max_tokens": 6}]
CHAINS: dict[str, Any] = {
    "greedy": {},
    "warm": {"sampling": [{"kind": "temperature", "temperature": 1.5}]},
    "cut": {"sampling": [{"kind": "top_p", "p": 0.9}, {"kind": "temperature", "temperature": 2.0}]},
    "mirostat": {"sampling": [{"kind": "mirostat_v2", "tau": 3.0}]},
}
METHODS: dict[str, Any] = {
    "vcd": {"contrast": {"kind": "vcd"}},
    "icd": {"contrast": {"kind": "icd"}},
    "cfg": {"contrast": {"kind": "cfg", "negative_prompt": "Say nothing."}},
    "dola": {"contrast": {"kind": "dola"}},
    "beam": {"search": {"kind": "beam", "num_beams": 3}},
    "contrastive": {"search": {"kind": "contrastive_search", "top_k": 3}},
}


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def question(shapes: Loaded) -> Request:
    return Request(ask(shapes, "Count the objects.", 1), (picture(1),))


def alone(shapes: Loaded, pipeline: PipelineConfig, seed: int | None = None) -> list[int]:
    own = pipeline if seed is None else pipeline.model_copy(update={"seed": seed})
    return collect(stream_pipeline(*shapes, question(shapes), own)).token_ids


def test_pipelines_and_seeds_are_what_they_are_alone(shapes: Loaded) -> None:
    model, passes = counted(shapes[0])
    prompt = start(model, shapes[1], question(shapes))
    assert passes.encoded == [1]
    passes.forwards.clear()
    pipelines = [PipelineConfig(stopping=STOP, **chain) for chain in CHAINS.values()]
    results = branch(prompt, pipelines, seeds=(0, 5, 9))
    assert passes.prefills == [], "the prefill was computed again"
    assert passes.steps == [12] * 5, "one forward pass per step for all rows"
    for pipeline, row in zip(pipelines, results, strict=True):
        assert [one.token_ids for one in row] == [alone(shapes, pipeline, s) for s in (0, 5, 9)]
        assert all(one.cached_tokens == one.prompt_tokens for one in row)
    again = branch(prompt, pipelines, seeds=(0, 5, 9), batch_size=5)
    assert [[r.token_ids for r in row] for row in again] == [
        [r.token_ids for r in row] for row in results
    ], "the prompt is a value: it can be branched again"


@pytest.mark.parametrize("name", METHODS)
def test_methods_branch_from_the_prompt(shapes: Loaded, name: str) -> None:
    model, passes = counted(shapes[0])
    prompt = start(model, shapes[1], question(shapes))
    passes.forwards.clear()
    pipeline = PipelineConfig(stopping=STOP, **METHODS[name])
    ((result,),) = branch(prompt, [pipeline])
    assert result.token_ids == alone(shapes, pipeline)
    computed = sum(width for _, width in passes.prefills)
    if name in ("dola", "beam"):
        assert computed <= 1
    if name == "icd":
        disturbed = len(prompt.inputs.token_ids) + len(shapes[1].encode(DISTURBANCE))
        assert computed <= disturbed - 18, "what is before the disturbance was computed again"


def test_tokens_come_as_they_are_certain(shapes: Loaded) -> None:
    prompt = start(*shapes, question(shapes))
    pipelines = [PipelineConfig(stopping=STOP, **CHAINS[name]) for name in ("greedy", "warm")]
    found: dict[tuple[int, int], list[int]] = {}
    for pipeline, seed, result in stream_branch(prompt, pipelines, seeds=(3, 4)):
        found.setdefault((pipeline, seed), []).extend(result.token_ids)
    expected = {(p, s): alone(shapes, pipelines[p], (3, 4)[s]) for p in (0, 1) for s in (0, 1)}
    assert found == expected


def test_a_prompt_starts_from_a_prompt_cache(shapes: Loaded) -> None:
    model, passes = counted(shapes[0])
    seen = PromptCache()
    start(model, shapes[1], question(shapes), prompt_cache=seen)
    passes.forwards.clear()
    prompt = start(model, shapes[1], question(shapes), prompt_cache=seen)
    assert passes.forwards == []
    ((result,),) = branch(prompt, [PipelineConfig(stopping=STOP)])
    assert result.token_ids == alone(shapes, PipelineConfig(stopping=STOP))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"cache": {"kind": "rotating", "max_size": 9}}, "pipeline 1: cache is Rotating.*another"),
        ({"preprocess": {"resize_shape": [56, 56]}}, "pipeline 1: preprocess is .*another prompt"),
    ],
)
def test_another_prompt_is_needed_for_another_cache_or_size(
    shapes: Loaded, other: dict[str, Any], message: str
) -> None:
    prompt = start(*shapes, "How many?")
    with pytest.raises(VlmkitError, match=message):
        branch(prompt, [PipelineConfig(), PipelineConfig(**other)])
    with pytest.raises(VlmkitError, match=message):
        stream_branch(prompt, [PipelineConfig(), PipelineConfig(**other)])
    for batch_size in (0, True, 1.5, "2"):
        with pytest.raises(VlmkitError, match=f"batch_size is {batch_size!r}; it must be a whole"):
            branch(prompt, [PipelineConfig()], batch_size=batch_size)  # type: ignore[arg-type]
    assert branch(prompt, []) == []

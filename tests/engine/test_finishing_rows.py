"""Caches that do something at the end of a prompt do it to every row alike, however it is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.prompts.test_branching import CHAINS, METHODS
from tests.prompts.test_cache import Loaded, ask, picture
from vlmkit import PipelineConfig, PromptCache, Request, branch, load, start
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.branching import load_prompts, save_prompts
from vlmkit.engine import collect
from vlmkit.passes.prefill import PrefillConfig

FOUR_BITS = {"kind": "affine", "bits": 4, "group_size": 32}
CACHES: dict[str, dict[str, Any]] = {
    "snapkv": {"ratio": 0.5, "image_ratio": 0.25, "keys": FOUR_BITS, "values": {"kind": "mxfp8"}},
    "pyramidkv": {"ratio": 0.4, "window": 3, "pool": 1, "beta": 3},
    "h2o": {"budget": 16},
    "random": {"ratio": 0.5},
    "modality": {"image": {"keys": FOUR_BITS, "values": FOUR_BITS}},
    "quantized": {"keys": FOUR_BITS, "values": FOUR_BITS, "start": "after_prefill", "recent": 4},
}
IN_STEPS = PrefillConfig(step_size=7)
STOP = [{"kind": "max_tokens", "max_tokens": 4}]
each_cache = pytest.mark.parametrize("kind", CACHES)


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def pipeline_of(kind: str, **more: Any) -> PipelineConfig:
    return PipelineConfig(cache={"kind": kind, **CACHES[kind]}, stopping=STOP, **more)


@each_cache
def test_rows_together_cut_and_branched_are_what_they_are_alone(shapes: Loaded, kind: str) -> None:
    ways = [{}, CHAINS["warm"], METHODS["vcd"], METHODS["dola"], METHODS["beam"]]
    questions = ("Count the objects.", "How many red circles are left of the square?")
    rows = [
        (Request(ask(shapes, question, 1), (picture(1),)), pipeline_of(kind, **way))
        for question in questions
        for way in ways
    ]
    alone = [collect(stream_pipeline(*shapes, *row)).token_ids for row in rows]
    together = batch_pipeline(*shapes, rows, batch_size=4).results
    assert [result.token_ids for result in together] == alone
    cut = [(one, way.model_copy(update={"prefill": IN_STEPS})) for one, way in rows]
    assert [r.token_ids for r in batch_pipeline(*shapes, cut, batch_size=2).results] == alone
    prompt = start(*shapes, *rows[0])
    branched = branch(prompt, [pipeline for _, pipeline in rows[: len(ways)]])
    assert [result.token_ids for (result,) in branched] == alone[: len(ways)]


@each_cache
def test_a_prompt_cache_serves_the_prompt_itself_and_no_other(
    shapes: Loaded, kind: str, tmp_path: Any
) -> None:
    pipeline, seen = pipeline_of(kind), PromptCache()
    prompts = [ask(shapes, question, 1) for question in ("Count the", "Count the red circles.")]
    requests = [Request(prompt, (picture(1),)) for prompt in prompts]

    def run(request: Request, cache: PromptCache | None) -> Any:
        return collect(stream_pipeline(*shapes, request, pipeline, prompt_cache=cache))

    fresh = [run(request, None) for request in requests]
    first, second, again = (run(requests[place], seen) for place in (0, 1, 1))
    assert [first.token_ids, second.token_ids] == [one.token_ids for one in fresh]
    assert (second.cached_tokens, again.cached_tokens) == (0, again.prompt_tokens)
    np.testing.assert_array_equal(again.logprobs, second.logprobs)
    file, other = tmp_path / "prompts.safetensors", PromptCache()
    assert save_prompts(seen, file, shapes[0], pipeline) == 2
    assert load_prompts(other, file, shapes[0], pipeline) == 2
    saved = run(requests[1], other)
    assert saved.cached_tokens == saved.prompt_tokens
    assert saved.token_ids == again.token_ids


@each_cache
def test_what_is_held_is_said_by_layer(shapes: Loaded, kind: str) -> None:
    request = Request(ask(shapes, "Count the objects.", 1), (picture(1),))
    result = collect(stream_pipeline(*shapes, request, pipeline_of(kind)))
    assert result.effective is not None
    facts, length = result.effective["cache"], result.prompt_tokens
    by_layer = facts["held_by_layer"]
    layers = [layer for one in by_layer for layer in one["layers"]]
    assert sorted(layers) == list(range(len(shapes[0].layer_specs)))
    assert facts["held_tokens"] == min(one["held_tokens"] for one in by_layer)
    drops = "ratio" in CACHES[kind] or "budget" in CACHES[kind]
    assert facts["dropped_prompt_tokens"] == (length + 3 - facts["held_tokens"] if drops else 0)
    assert (len(by_layer) > 1) == (kind == "pyramidkv")
    dense = 2 * sum(2 * spec.num_kv_heads * spec.key_dim for spec in shapes[0].layer_specs)
    held = sum(one["held_bytes"] * len(one["layers"]) for one in by_layer)
    assert held < dense * 2 * (length + 3)

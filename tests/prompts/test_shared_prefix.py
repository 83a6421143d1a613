"""Rows of one prompt read one copy of it, and answer as rows that have copies do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.models.text_models import random_lm
from tests.prompts.test_cache import Loaded, ask, picture
from vlmkit import PipelineConfig, Request, load
from vlmkit.batch import batch_pipeline
from vlmkit.cache import AffineConfig, DenseConfig, RotatingConfig, cache_num_bytes, new_cache
from vlmkit.cache.prefixes import SharedState
from vlmkit.contracts.inputs import Inputs
from vlmkit.passes.decode import decode_step
from vlmkit.prompts import PrefillOptions, prefill_prompts

STOP = [{"kind": "max_tokens", "max_tokens": 6}]
NUM_ROWS = 8


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


@pytest.fixture(scope="module")
def copying() -> Loaded:
    """The same model, whose rows have copies of what they begin with."""
    model, processor = load("shapes")
    forms = model.backend.forms._replace(prefixed=None)
    model.backend = replace(model.backend, forms=forms)
    return model, processor


def start_rows(model: Any, config: Any, batch: list[Inputs]) -> Any:
    prefilled = prefill_prompts(model, batch, PrefillOptions(partial(new_cache, config), 2048))
    return prefilled.state, model.logits(prefilled.hidden.final)


def prompt_of(length: int, seed: int) -> Inputs:
    return Inputs.of(np.random.default_rng(seed).integers(1, 600, length).astype(np.int32))


@pytest.mark.parametrize(
    "config", [DenseConfig(), AffineConfig(bits=8, group_size=32)], ids=lambda config: config.kind
)
def test_logits_are_those_of_copies(shapes: Loaded, copying: Loaded, config: Any) -> None:
    head = prompt_of(60, 1).token_ids
    different = [Inputs.of(np.concatenate([head, prompt_of(20 + n, n).token_ids])) for n in (2, 3)]
    batch = [prompt_of(80, 5)] * NUM_ROWS + different * 4
    (one, first), (two, second) = (start_rows(m, config, batch) for m in (shapes[0], copying[0]))
    assert isinstance(one.cache.layers[0], SharedState)
    assert not isinstance(two.cache.layers[0], SharedState)
    for number in range(4):
        np.testing.assert_allclose(np.array(first), np.array(second), atol=1e-5, rtol=1e-5)
        tokens = (mx.arange(len(batch), dtype=mx.int32) * 7 + number) % 600
        one, first = decode_step(shapes[0], one, tokens)
        two, second = decode_step(copying[0], two, tokens)
    assert cache_num_bytes(one.cache) < 1.2 * cache_num_bytes(two.cache)


def test_a_long_prompt_takes_its_bytes_once(shapes: Loaded, copying: Loaded) -> None:
    batch = [prompt_of(1000, 1)] * NUM_ROWS
    sizes = []
    for model, _ in (shapes, copying):
        state, _ = start_rows(model, DenseConfig(), batch)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        state, logits = decode_step(model, state, mx.zeros(NUM_ROWS, mx.int32))
        mx.eval(state.cache.layers, logits)
        sizes.append((cache_num_bytes(state.cache), mx.get_peak_memory() - before))
    (shared, shared_peak), (copied, copied_peak) = sizes
    assert copied / shared == pytest.approx(NUM_ROWS * 1024 / (1024 + NUM_ROWS * 256), rel=0.01)
    assert shared_peak < copied_peak


@pytest.mark.parametrize("batch_size", [4, 12])
def test_samples_of_two_prompts_are_those_of_copies(
    shapes: Loaded, copying: Loaded, batch_size: int
) -> None:
    chains: list[Any] = [{"kind": "temperature", "temperature": 2.0}]
    pipelines = [
        PipelineConfig(sampling=chains, stopping=STOP, seed=1),
        PipelineConfig(search={"kind": "beam", "num_beams": 3}, stopping=STOP),
        PipelineConfig(contrast={"kind": "vcd"}, sampling=chains, stopping=STOP, seed=2),
    ]
    asked = "Count the objects. " * 12
    requests = [Request(ask(shapes, asked, 1), (picture(n),), sample=n) for n in (1, 2)] * 3
    found = []
    for loaded in (shapes, copying):
        rows = [(request, pipeline) for pipeline in pipelines for request in requests]
        results = batch_pipeline(*loaded, rows, batch_size=batch_size).results
        found.append([result.token_ids for result in results])
        facts = results[0].effective["cache"]
        assert facts["num_sharing_layers"] == (facts["num_layers"] if loaded is shapes else 0)
    assert found[0] == found[1]


def test_other_kinds_and_other_architectures_have_copies(shapes: Loaded) -> None:
    batch = [prompt_of(80, 5)] * NUM_ROWS
    state, _ = start_rows(shapes[0], RotatingConfig(max_size=100), batch)
    assert not isinstance(state.cache.layers[0], SharedState)
    small = [Inputs.of(prompt_of(80, 5).token_ids % 50)] * NUM_ROWS
    state, _ = start_rows(random_lm("llama"), DenseConfig(), small)
    assert not isinstance(state.cache.layers[0], SharedState)

"""Windows: what a size beyond the history gives, and what it costs."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.sampling.contract import VOCAB_SIZE
from vlmkit import generate, load
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import (
    Dry,
    FrequencyPenalty,
    Greedy,
    MinNewTokens,
    NoRepeatNgram,
    PresencePenalty,
    RepetitionPenalty,
    build_stage,
    join_states,
)
from vlmkit.stopping import MaxTokensConfig

WINDOWED: tuple[Any, ...] = (
    RepetitionPenalty(penalty=1.3),
    PresencePenalty(penalty=0.5, include_prompt=True),
    FrequencyPenalty(penalty=0.5),
    Dry(multiplier=0.8, allowed_length=1, breaker_ids=(2,)),
    NoRepeatNgram(n=2),
)
each_config = pytest.mark.parametrize("config", WINDOWED, ids=lambda config: config.kind)
PROMPTS = [np.array([3, 1, 2, 3, 1], np.int32), np.array([4], np.int32)]
STEPS = np.random.default_rng(0).integers(0, 5, (30, 2))


def outputs(config: Any, num_steps: int = 30) -> tuple[list[Any], int]:
    """What the stage makes of two rows after each step, and the numbers in its last state."""
    stage = build_stage(config)
    state = join_states([stage.init([prompt], VOCAB_SIZE) for prompt in PROMPTS])
    found = []
    for step in STEPS[:num_steps]:
        found.append(np.array(stage.apply(state, mx.ones((2, VOCAB_SIZE)), None)))
        state = stage.update(state, mx.array(step))
    return found, sum(leaf.size for _, leaf in tree_flatten(state))


@each_config
def test_a_size_beyond_the_history_means_all_of_it_and_costs_nothing(config):
    everything, _ = outputs(config.model_copy(update={"context_size": None}))
    needed = outputs(config.model_copy(update={"context_size": 40}))[1]
    for size in (40, 10**9, 10**30):
        found, num_numbers = outputs(config.model_copy(update={"context_size": size}))
        np.testing.assert_array_equal(found, everything)
        assert num_numbers == needed < 200


@each_config
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_window_grows_no_further_than_its_size(config, size):
    windowed = config.model_copy(update={"context_size": size})
    counts = [outputs(windowed, num_steps)[1] for num_steps in (10, 20, 30)]
    assert len(set(counts)) == 1
    last = outputs(windowed)[0][-1]
    recent = STEPS[29 - size : 29].T  # the history before the last output
    stage = build_stage(windowed.model_copy(update={"context_size": None}))
    state = stage.init([np.zeros(0, np.int32)] * 2, VOCAB_SIZE)
    for step in recent.T:
        state = stage.update(state, mx.array(step))
    expected = np.array(stage.apply(state, mx.ones((2, VOCAB_SIZE)), None))
    np.testing.assert_allclose(last, expected, rtol=1e-6)


@pytest.mark.parametrize("number", [10**9, 10**12, 10**30])
def test_lengths_that_nothing_reaches_are_never_reached(number):
    free = np.ones((2, VOCAB_SIZE))
    for config in (Dry(multiplier=1.0, allowed_length=number), NoRepeatNgram(n=number)):
        np.testing.assert_array_equal(outputs(config)[0], [free] * 30)
    held = outputs(MinNewTokens(num_tokens=number, token_ids=(4,)))[0]
    assert all(np.isneginf(out[:, 4]).all() for out in held)


def test_generation_with_a_large_number_is_that_with_all():
    model, processor = load("shapes")
    texts = {
        generate(
            model,
            processor,
            "How many circles are there?",
            max_tokens=12,
            repetition_penalty=1.3,
            repetition_context_size=size,
        ).text
        for size in (100, 10**9)
    }
    assert len(texts) == 1


@each_config
def test_every_stage_with_a_large_number_runs_as_with_all(config):
    model, processor = load("shapes")
    found = []
    for size in (None, 10**9):
        pipeline = PipelineConfig(
            sampling=(config.model_copy(update={"context_size": size}), Greedy()),
            stopping=(MaxTokensConfig(max_tokens=6),),
        )
        request = Request("How many circles are there?")
        steps = stream_pipeline(model, processor, request, pipeline)
        found.append([result.token for result in steps])
    assert found[0] == found[1]
    assert len(found[0]) == 6

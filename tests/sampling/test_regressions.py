"""Defects seen in other toolkits, each held off by name."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.sampling.contract import CONTRACT, VOCAB_SIZE, build_chain, build_stage
from vlmkit.errors import VlmkitError
from vlmkit.numeric.counter_rng import uniform, uniforms
from vlmkit.sampling import (
    Greedy,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    exclude_ids,
)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_1_a_seed_changes_the_draw_but_never_the_distribution(seed):
    """Stages don't see the seed: the number only picks a place in one distribution."""
    sampler = build_chain([TopK(k=8), TopP(p=0.9), Temperature(temperature=0.8)])
    values = mx.array(np.random.default_rng(0).normal(size=(1, VOCAB_SIZE)).astype(np.float32))
    state = sampler.init([[]], VOCAB_SIZE)
    numbers = mx.array([[uniform(seed, 0, 0)]])
    np.testing.assert_array_equal(
        np.array(sampler.apply(state, values, numbers)),
        np.array(sampler.apply(state, values, mx.array([[0.5]]))),
    )


def test_1_a_seed_is_never_ignored():
    """Every chain that isn't greedy draws other tokens under another seed."""
    values = mx.zeros((1, VOCAB_SIZE))
    for kind, row in CONTRACT.items():
        sampler = build_chain([row.neutral] if row.neutral else [row.configs[0]])
        state = sampler.init([np.zeros(0, np.int32)], VOCAB_SIZE)
        drawn = {
            tuple(
                sampler.sample(
                    state, values, mx.array([uniforms(seed, 0, i, 1 + sampler.num_random)])
                )[1].item()
                for i in range(8)
            )
            for seed in range(4)
        }
        assert len(drawn) == (1 if kind == "greedy" else 4), kind


def test_5_one_penalty_window_over_prompt_and_answer():
    """Tokens given as prompt and tokens generated since count alike."""
    stage = build_stage(RepetitionPenalty(penalty=2.0, context_size=4))
    history = [3, 1, 4, 1, 5, 9, 2]
    values = mx.ones((1, VOCAB_SIZE))
    results = []
    for cut in range(len(history) + 1):
        state = stage.init([np.array(history[:cut], np.int32)], VOCAB_SIZE)
        for token_id in history[cut:]:
            state = stage.update(state, mx.array([token_id]))
        results.append(np.array(stage.apply(state, values, None)))
    for result in results:
        np.testing.assert_array_equal(np.flatnonzero(result[0] < 1), [1, 2, 5, 9])


def test_5_no_window_of_zero_that_means_everything():
    with pytest.raises(VlmkitError, match="context_size: must be at least 1 or null, got 0"):
        RepetitionPenalty(penalty=1.1, context_size=0)


def test_5_image_placeholders_neither_count_nor_push_others_out():
    configs = exclude_ids([RepetitionPenalty(penalty=2.0, context_size=3), Greedy()], [20])
    prompt = np.array([6, 7, *[20] * 50, 8], np.int32)
    stage = build_stage(configs[0])
    out = stage.apply(stage.init([prompt], VOCAB_SIZE), mx.ones((1, VOCAB_SIZE)), None)
    assert np.flatnonzero(np.array(out)[0] < 1).tolist() == [6, 7, 8]


@pytest.mark.parametrize("k", [VOCAB_SIZE, VOCAB_SIZE + 1, 10**9])
def test_15_top_k_of_the_whole_vocabulary_is_the_identity(k):
    sampler = build_chain([TopK(k=k)])
    values = mx.array(np.random.default_rng(1).normal(size=(2, VOCAB_SIZE)).astype(np.float32))
    state = sampler.init([[], []], VOCAB_SIZE)
    out = sampler.apply(state, values, None)
    np.testing.assert_array_equal(np.array(out), np.array(values))
    assert sampler.sample(state, values, mx.zeros((2, 1)))[1].tolist() == [0, 0]


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_15_a_bad_top_k_fails_at_construction(k):
    with pytest.raises(VlmkitError):
        TopK(k=k)


@pytest.mark.parametrize(
    "kind", ["repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias"]
)
def test_15_penalties_leave_the_callers_logits_alone(kind):
    values = mx.array(np.linspace(-2, 2, VOCAB_SIZE, dtype=np.float32)[None])
    before = np.array(values)
    for config in CONTRACT[kind].configs:
        stage = build_stage(config)
        state = stage.init([np.arange(8, dtype=np.int32)], VOCAB_SIZE)
        state = stage.update(state, mx.array([3]))
        out = stage.apply(state, values, None)
        assert (np.array(out) != before).any()
        np.testing.assert_array_equal(np.array(values), before)


@pytest.mark.parametrize("kind", sorted(CONTRACT))
def test_8_an_unknown_key_of_a_stage_is_never_swallowed(kind):
    """`temp=0.7` on a sampler that doesn't know it would silently be greedy."""
    config = CONTRACT[kind].configs[0]
    with pytest.raises(VlmkitError, match=r"temp: unknown key"):
        type(config)(**config.model_dump(), temp=0.7)

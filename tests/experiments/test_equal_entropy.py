"""The entropy of a sampler chain, and the temperature that gives it a value."""

from __future__ import annotations

import math

import mlx.core as mx
import pytest

from experiments.equal_entropy.entropy import (
    HOTTEST,
    STUDY,
    mean_entropy,
    solve,
    temperature_of,
    with_temperature,
)
from vlmkit import PipelineConfig
from vlmkit.experiment.files import load_experiment
from vlmkit.sampling import MinP, Temperature, TopK

LOGITS = mx.array([[0.0, math.log(3.0), -1e9], [2.0, 2.0, 2.0]])


def test_the_entropy_is_that_of_what_the_chain_leaves() -> None:
    quarter = 0.25 * math.log(4.0) + 0.75 * math.log(4.0 / 3.0)
    plain = PipelineConfig(sampling=[Temperature(temperature=1.0)])
    assert mean_entropy(plain, LOGITS) == pytest.approx((quarter + math.log(3.0)) / 2, abs=1e-6)
    cut = PipelineConfig(sampling=[TopK(k=1), Temperature(temperature=5.0)])
    assert mean_entropy(cut, LOGITS) == pytest.approx(0.0, abs=1e-6)


def test_the_temperature_gives_the_wanted_entropy() -> None:
    logits = mx.array([[0.0, 4.0, 1.0], [3.0, 0.0, -2.0]])
    pipeline = PipelineConfig(sampling=[Temperature(temperature=1.0)])
    hot = with_temperature(pipeline, solve(pipeline, logits, 0.5))
    assert temperature_of(hot) > 1.0
    assert mean_entropy(hot, logits) == pytest.approx(0.5, abs=1e-4)


def test_a_chain_that_cannot_have_it_comes_out_hottest() -> None:
    one_left = PipelineConfig(sampling=[MinP(p=1.0), Temperature(temperature=1.0)])
    assert solve(one_left, mx.array([[0.0, 4.0, 1.0]]), 0.5) == HOTTEST


def test_every_arm_of_the_study_has_one_temperature() -> None:
    pipelines = [arm.config.pipeline for arm in load_experiment(STUDY).arms]
    assert all(temperature_of(pipeline) > 1.0 for pipeline in pipelines)
    kinds = {tuple(stage.kind for stage in pipeline.sampling) for pipeline in pipelines}
    assert len(kinds) == len(pipelines)

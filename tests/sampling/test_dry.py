"""DRY against llama.cpp's own: penalties that it computed before, and the sampler itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

from tests.effort import scaled
from tests.sampling.dry_cases import GOLDENS, NUM_IDS, DryCase, dry_cases, golden, penalties
from tests.sampling.test_laws import run
from vlmkit.sampling import Dry

CASES = [
    (DryCase(entry["prompt"], entry["answer"], Dry(**entry["config"])), entry)
    for entry in json.loads(GOLDENS.read_text())
]


def assert_penalties(case: DryCase, expected: list[float]) -> None:
    steps = np.array(case.answer, np.int32).reshape(-1, 1)
    zeros = np.zeros((1, NUM_IDS), np.float32)
    out = run(case.config, zeros, [np.array(case.prompt, np.int32)], steps)
    np.testing.assert_allclose(out[0], expected, rtol=1e-5)


def test_penalties_that_llama_cpp_computed():
    for case, entry in CASES:
        assert_penalties(case, entry["logits"])


def test_the_cases_tell_breakers_that_are_penalised_from_those_that_are_not():
    differing = 0
    for case, entry in CASES:
        for breaker_id in case.config.breaker_ids:
            rest = tuple(i for i in case.config.breaker_ids if i != breaker_id)
            config = case.config.model_copy(update={"breaker_ids": rest})
            zeros = np.zeros((1, NUM_IDS), np.float32)
            out = run(config, zeros, [np.array(case.prompt + case.answer, np.int32)])
            differing += out[0, breaker_id] < 0
            assert entry["logits"][breaker_id] == 0
    assert differing > 20


def test_a_breaker_after_a_repetition_is_left_alone():
    config = Dry(multiplier=1.0, base=1.1, allowed_length=2, breaker_ids=(3,))
    assert_penalties(DryCase([0, 1, 3, 4, 0, 1], [], config), [0.0] * NUM_IDS)


@pytest.mark.llama_cpp
def test_the_file_holds_what_llama_cpp_computes():
    assert [golden(case) for case, _ in CASES] == [entry for _, entry in CASES]


@pytest.mark.llama_cpp
@settings(max_examples=scaled(300))
@given(case=dry_cases())
def test_llama_cpp(case):
    assert_penalties(case, penalties(case))

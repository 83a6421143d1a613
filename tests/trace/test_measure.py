"""A step's record against the same numbers by an independent route, token by token."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.sampling.contract import VOCAB_SIZE, cases
from tests.sampling.strategies import logits
from tests.trace.chains import decode, measure, run_chain
from vlmkit.contracts.stages import StepTrace
from vlmkit.errors import VlmkitError
from vlmkit.sampling import Temperature, TopK, TopP
from vlmkit.tracing import TraceStep

CHAINS = st.lists(st.sampled_from(cases()), max_size=4)


def distribution(values: np.ndarray[Any, Any]) -> tuple[list[float], list[float | None]]:
    """Probabilities and log-probabilities, by exact summation."""
    numbers = [float(value) for value in values]
    largest = max(numbers)
    total = math.fsum(math.exp(number - largest) for number in numbers)
    logprobs = [
        None if number == -math.inf else number - largest - math.log(total) for number in numbers
    ]
    return [0.0 if value is None else math.exp(value) for value in logprobs], logprobs


def close(value: float | None, wanted: float | None) -> bool:
    if value is None or wanted is None:
        return value is wanted
    return math.isclose(value, wanted, rel_tol=1e-12, abs_tol=1e-12)


def assert_as_defined(step: TraceStep, trace: StepTrace, top_n: int) -> None:
    tables = [np.array(values, np.float64) for values in trace.logits]
    before: list[float] = distribution(tables[0])[0]
    kept_before = np.isfinite(tables[0])
    own_order = sorted(range(len(tables[0])), key=lambda i: (-tables[0][i], i))
    for stage, name, values in zip(step.stages, trace.names, tables, strict=True):
        probs, logprobs = distribution(values)
        kept = [i for i, value in enumerate(logprobs) if value is not None]
        order = sorted(kept, key=lambda i: (-values[i], i))
        gone = [i for i in range(len(probs)) if kept_before[i] and logprobs[i] is None]
        assert (stage.name, stage.num_kept, stage.num_removed) == (name, len(kept), len(gone))
        entropy = -math.fsum(probs[i] * (logprobs[i] or 0.0) for i in kept)
        assert close(stage.entropy_nats, max(0.0, entropy))
        assert [token.id for token in stage.top] == order[:top_n]
        assert all(close(token.logprob, logprobs[token.id]) for token in stage.top)
        assert all(token.text == decode([token.id]) for token in stage.top)
        assert close(stage.token_logprob, logprobs[step.token_id])
        assert close(stage.removed_mass, math.fsum(before[i] for i in gone))
        listed = sorted(gone, key=lambda i: (-before[i], i))[: min(top_n, 5)]
        assert [round(token.prob, 12) for token in stage.removed] == [
            round(before[i], 12) for i in listed
        ]
        for token, value in zip(step.tokens, stage.tracked, strict=True):
            assert close(value, logprobs[token.id])
        before, kept_before = probs, np.isfinite(values)
    wanted = {token.id for stage in step.stages for token in stage.top}
    assert {token.id for token in step.tokens} == wanted | {step.token_id, step.sampled_id}
    assert [token.rank for token in step.tokens] == sorted(token.rank for token in step.tokens)
    for token in step.tokens:
        assert own_order[token.rank - 1] == token.id
        alive = [bool(np.isfinite(values[token.id])) for values in tables]
        if alive[-1]:
            assert token.removed_by is None
        else:
            assert token.removed_by is not None
            assert not any(alive[token.removed_by :])
            assert token.removed_by == 0 or alive[token.removed_by - 1]


@given(
    configs=CHAINS,
    values=logits(),
    top_n=st.integers(1, VOCAB_SIZE + 3),
    uniform=st.floats(0, 0.99),
    taken=st.integers(0, VOCAB_SIZE - 1),
)
def test_against_the_definition(
    configs: list[Any], values: Any, top_n: int, uniform: float, taken: int
) -> None:
    trace = run_chain(configs, values[0], uniform=uniform)
    assume(trace.sampled_id >= 0)  # a chain may forbid every token: then nothing is drawn
    assert_as_defined(measure(trace, top_n=top_n), trace, top_n)
    assert_as_defined(measure(trace, top_n=top_n, token_id=taken, forced=True), trace, top_n)


def test_a_large_vocabulary_sums_to_one() -> None:
    values = np.random.default_rng(0).normal(size=151_936).astype(np.float32)
    step = measure(run_chain([TopP(p=0.9), TopK(k=50)], values), top_n=50)
    total = math.fsum(math.exp(token.logprob) for token in step.stages[-1].top)
    assert math.isclose(total, 1.0, rel_tol=1e-12)
    assert step.stages[0].num_kept == 151_936
    assert math.isclose(step.stages[1].removed_mass, 0.1, abs_tol=1e-4)


def test_a_token_that_comes_back_was_removed_the_last_time() -> None:
    gone, back = np.array([0.0, 1.0, -np.inf]), np.array([0.0, 1.0, 2.0])
    passed = tuple(mx.array(values.astype(np.float32)) for values in (back, gone, back, gone))
    trace = StepTrace(("model", "a", "b", "c"), passed, 1)
    step = measure(trace)
    assert {token.id: token.removed_by for token in step.tokens} == {2: 3, 1: None, 0: None}
    step = measure(StepTrace(("model", "a", "b"), passed[:3], 1))
    assert all(token.removed_by is None for token in step.tokens)


def test_nothing_left_is_nothing_left() -> None:
    passed = (mx.array([0.0, 1.0]), mx.full((2,), -mx.inf))
    stage = measure(StepTrace(("model", "cut"), passed, 1)).stages[1]
    assert (stage.num_kept, stage.entropy_nats, stage.top, stage.token_logprob) == (0, 0, [], None)
    assert (stage.num_removed, stage.removed_mass) == (2, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_distribution(value: float) -> None:
    trace = run_chain([Temperature(temperature=0.5)], np.array([0.0, value], np.float32))
    with pytest.raises(VlmkitError, match="after stage 'model' hold NaN or"):
        measure(trace._replace(sampled_id=0))


def test_the_logits_stay_as_they_are() -> None:
    trace = run_chain([TopK(k=2)], np.arange(6, dtype=np.float32))
    before = [np.array(values) for values in trace.logits]
    measure(trace)
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(before, trace.logits, strict=True))

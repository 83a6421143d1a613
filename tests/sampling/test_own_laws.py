"""What single stages promise beside the laws of all: limits, scalings, exact boundaries."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.effort import scaled
from tests.sampling.contract import VOCAB_SIZE, build_chain, build_stage
from tests.sampling.strategies import logits
from tests.sampling.test_laws import assert_same_distribution, log_softmax, no_knife_edge, run
from vlmkit.sampling import (
    Dry,
    DynamicTemperature,
    FrequencyPenalty,
    Greedy,
    MinP,
    MirostatV1,
    MirostatV2,
    PLess,
    Quadratic,
    RepetitionPenalty,
    TailFree,
    Temperature,
    TopNSigma,
    TopP,
    Xtc,
)

LAW = settings(max_examples=scaled(40))
Values = NDArray[np.float32]


def kept(config: object, values: Values, u: object = None) -> NDArray[np.bool_]:
    return ~np.isneginf(run(config, values, u=u))


@LAW
@given(values=logits(only=("normal", "peaked", "one finite")), number=st.integers(0, 2**24 - 1))
def test_greedy_equals_temperature_towards_zero(values: Values, number: int) -> None:
    two = np.sort(values, axis=-1)[:, -2:]
    gap = min(float((two[:, 1] - two[:, 0]).min()), 1.0)
    assume(gap > 0)
    u = mx.full((len(values), 1), number * 2.0**-24)
    tokens = []
    for config in (Greedy(), Temperature(temperature=gap / 200), Temperature(temperature=1e-300)):
        sampler = build_chain([config])
        state = sampler.init([[]] * len(values), VOCAB_SIZE)
        tokens.append(sampler.sample(state, mx.array(values), u)[1].tolist())
    assert tokens[0] == tokens[1] == tokens[2]


@pytest.mark.parametrize(
    "config",
    [
        Temperature(temperature=0.3),
        Temperature(temperature=4.0),
        DynamicTemperature(min_temperature=0.4, max_temperature=3.0),
        Quadratic(factor=0.3),
    ],
    ids=lambda config: config.kind,
)
@LAW
@given(values=logits())
def test_a_temperature_keeps_the_ranking(config: object, values: Values) -> None:
    for row, out in zip(values, run(config, values), strict=True):
        order = np.argsort(row, kind="stable")
        assert (np.diff(out[order][~np.isneginf(out[order])]) >= 0).all()


@LAW
@given(values=logits(), penalty=st.sampled_from([0.7, 1.4]))
def test_a_temperature_above_one_is_a_plain_division(values: Values, penalty: float) -> None:
    """So it keeps the signs, and a repetition penalty may come before or after it."""
    history = [np.arange(6, dtype=np.int32)] * len(values)
    hot, penalise = Temperature(temperature=2.0), RepetitionPenalty(penalty=penalty)
    np.testing.assert_array_equal(
        run(hot, run(penalise, values, history)), run(penalise, run(hot, values), history)
    )


@LAW
@given(
    values=logits(),
    temperature=st.sampled_from([0.5, 0.8, 1.7, 3.0]),
    p=st.sampled_from([0.04, 0.3, 0.9]),
)
def test_min_p_equals_min_p_at_a_temperature_with_the_root(
    values: Values, temperature: float, p: float
) -> None:
    """min_p m keeps what min_p m^(1/T) keeps at temperature T."""
    wide = values.astype(np.float64)
    distance = wide - wide.max(-1, keepdims=True) - np.log(p)
    assume((np.abs(distance[np.isfinite(distance)]) > 1e-4).all())
    hot = run(Temperature(temperature=temperature), values)
    at_temperature = kept(MinP(p=p ** (1 / temperature)), hot)
    np.testing.assert_array_equal(at_temperature, kept(MinP(p=p), values))


@LAW
@given(
    values=logits(only=("normal", "peaked", "ties", "nearly flat")),
    temperature=st.sampled_from([0.3, 0.9, 1.5, 6.0]),
    n=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_top_n_sigma_commutes_with_temperature(
    values: Values, temperature: float, n: float
) -> None:
    config, scale = TopNSigma(n=n), Temperature(temperature=temperature)
    assume(no_knife_edge(config, values))
    assert_same_distribution(run(config, run(scale, values)), run(scale, run(config, values)))


@LAW
@given(values=logits(only=("normal", "nearly flat")), p=st.sampled_from([0.3, 0.6, 0.9]))
def test_top_p_twice_is_top_p_of_a_share_of_what_the_first_left(values: Values, p: float) -> None:
    """It is idempotent in the masses it is given; a second one is given others, normalised anew."""
    probs = np.exp(log_softmax(values))
    once = run(TopP(p=p), values)
    twice = kept(TopP(p=p), once)
    for row in range(len(values)):
        mass = probs[row][~np.isneginf(once[row])].sum()
        part = values[row : row + 1]
        near = [kept(TopP(p=min(p * mass * factor, 1.0)), part) for factor in (1 - 1e-4, 1 + 1e-4)]
        if np.array_equal(*near):
            np.testing.assert_array_equal(twice[row], near[0][0])
    flat = np.zeros((1, 10), np.float32)
    assert [kept(TopP(p=0.55), run(TopP(p=q), flat)).sum() for q in (1.0, 0.55)] == [6, 4]


def test_top_p_stops_where_the_mass_above_is_exactly_the_share() -> None:
    assert kept(TopP(p=0.5), np.zeros((1, 2), np.float32)).tolist() == [[True, False]]
    assert kept(TopP(p=0.5), np.zeros((1, 8), np.float32)).sum() == 4


def test_top_p_keeps_all_ties_of_a_large_vocabulary() -> None:
    """More tokens tie with the last one kept than are selected at first."""
    values = np.full((1, 9000), -50.0, np.float32)
    values[0, 1::4] = 0.0
    np.testing.assert_array_equal(kept(TopP(p=0.1, ties="all"), values), values == 0.0)


def test_top_p_selects_enough_for_the_flattest_row_of_a_large_vocabulary() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(3, 20_000)) * [[9.0], [0.1], [3.0]]).astype(np.float32)
    together = kept(TopP(p=0.9), values)
    for row in range(3):
        np.testing.assert_array_equal(together[row], kept(TopP(p=0.9), values[row : row + 1])[0])
    assert together[0].sum() < 1024 < 16384 < together[1].sum()


@pytest.mark.parametrize("size", [3, 24, 5000])
def test_tail_free_keeps_everything_where_nothing_bends(size: int) -> None:
    assert kept(TailFree(z=0.5), np.full((2, size), 0.25, np.float32)).all()


@LAW
@given(values=logits(only=("normal", "peaked")), temperature=st.sampled_from([0.5, 2.0]))
def test_p_less_at_a_temperature_decides_there_and_divides_nothing(
    values: Values, temperature: float
) -> None:
    probs = np.exp(log_softmax(values / np.float32(temperature)))
    cutoff = (probs**2).sum(-1, keepdims=True)
    assume((np.abs(probs / cutoff - 1) > 1e-4).all())
    expected = np.where(probs >= cutoff, values, -np.inf)
    np.testing.assert_array_equal(run(PLess(temperature=temperature), values), expected)


def test_xtc_counts_a_token_at_the_threshold_and_spares_a_number_at_the_probability() -> None:
    values = np.log(np.array([[0.5, 0.25, 0.125, 0.125]], np.float32))
    config = Xtc(probability=0.5, threshold=0.25)
    assert kept(config, values, [0.25]).tolist() == [[False, True, True, True]]
    assert kept(config, values, [0.5]).all()
    assert kept(Xtc(probability=0.0, threshold=0.1), values, [0.0]).all()


def test_a_token_that_was_impossible_leaves_the_bound_of_mirostat_alone() -> None:
    stage = build_stage(MirostatV2(tau=2.0, eta=0.5))
    state = stage.init([[], []], 3)
    values = mx.array([[0.0, -mx.inf, 0.0], [0.0, -mx.inf, 0.0]])
    state = stage.update(stage.observe(state, values), mx.array([1, 0]))  # 1 can only be forced
    assert state.mu.tolist() == [4.0, 4.5]


@pytest.mark.parametrize("spread", [0.0, 1e-5])
@pytest.mark.parametrize("size", [1, 2, 24, 300])
def test_mirostat_v1_cuts_nothing_where_the_tokens_are_as_good_as_equal(
    spread: float, size: int
) -> None:
    values = (np.linspace(0, spread, size)[None] - 3.0).astype(np.float32)
    assert kept(MirostatV1(tau=0.5 if spread == 0.0 else 8.0), values).all()


def test_frequency_penalty_counts_every_time() -> None:
    for config in (
        FrequencyPenalty(penalty=0.5, include_prompt=True),
        FrequencyPenalty(penalty=0.5, include_prompt=True, context_size=9),
    ):
        prompt = [np.array([7, 7, 1, 7], np.int32)]
        out = run(config, np.zeros((1, VOCAB_SIZE), np.float32), prompt, [[7], [7], [1]])
        assert (out[0, 7], out[0, 1], out[0, 0]) == (-2.5, -1.0, 0.0)


@pytest.mark.parametrize("context_size", [1, 20, None])
def test_repetition_penalty_counts_id_zero(context_size: int | None) -> None:
    config = RepetitionPenalty(penalty=2.0, context_size=context_size)
    out = run(config, np.ones((1, VOCAB_SIZE), np.float32), [np.array([0], np.int32)])
    assert np.flatnonzero(out[0] < 1).tolist() == [0]


def test_dry_looks_across_no_breaker_of_the_prompt() -> None:
    prompt = [np.array([5, 2, 6, 9, 5, 2, 6], np.int32)]
    for breaker_ids, penalty in (((), -8.0), ((2,), -2.0), ((6,), 0.0)):
        config = Dry(multiplier=2.0, base=2.0, allowed_length=1, breaker_ids=breaker_ids)
        assert run(config, np.zeros((1, VOCAB_SIZE), np.float32), prompt)[0, 9] == penalty


def test_dry_leaves_every_row_its_tokens_however_long_the_repetition() -> None:
    config = Dry(multiplier=2.0, base=4.0, allowed_length=1, context_size=None)
    out = run(config, np.zeros((1, VOCAB_SIZE), np.float32), [np.full(600, 7, np.int32)])
    assert np.isfinite(out).all()
    assert out[0, 7] < -1e29

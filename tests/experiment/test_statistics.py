"""Intervals, tests and corrections against scipy, closed forms and published values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from vlmkit.errors import VlmkitError
from vlmkit.experiment import uncertainty
from vlmkit.experiment.power import detectable_difference
from vlmkit.experiment.uncertainty import (
    bootstrap_intervals,
    exact_interval,
    holm,
    mcnemar_p_value,
    sign_flip_p_values,
)

DRAWN = np.random.default_rng(5).normal(0.3, 1.0, (40, 3))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("column", range(3))
def test_intervals_are_scipys(confidence: float, column: int) -> None:
    own = bootstrap_intervals(DRAWN, confidence=confidence, resamples=500, seed=7)
    expected = stats.bootstrap(
        (DRAWN[:, column],), np.mean, confidence_level=confidence, n_resamples=500,
        method="percentile", rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    assert_allclose(own[column], expected, rtol=1e-12)


def test_intervals_do_not_depend_on_how_much_is_drawn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = bootstrap_intervals(DRAWN, resamples=300)
    monkeypatch.setattr(uncertainty, "_CHUNK", 1000)
    assert_allclose(bootstrap_intervals(DRAWN, resamples=300), whole, rtol=1e-12)


def test_a_missing_value_is_as_if_the_sample_were_drawn_without_it() -> None:
    values = np.array([[0.0], [1.0], [np.nan], [3.0]])
    generator = np.random.default_rng(3)
    rows = values[:, 0][generator.integers(0, 4, (200, 4))]
    means = np.nanmean(rows[np.isfinite(rows).any(axis=1)], axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    assert_allclose(bootstrap_intervals(values, resamples=200, seed=3)[0], expected, rtol=1e-12)
    empty = bootstrap_intervals(np.full((4, 1), np.nan), resamples=20)
    assert np.isnan(empty).all()
    assert bootstrap_intervals(np.zeros((0, 2))).shape == (2, 2)


def test_intervals_cover_the_true_mean() -> None:
    generator = np.random.default_rng(0)
    values = generator.binomial(1, 0.7, (80, 600)).astype(float)
    low, high = bootstrap_intervals(values, resamples=800).T
    covered = np.mean((low <= 0.7) & (high >= 0.7))
    assert stats.binomtest(int(covered * 600), 600, 0.95).pvalue > 1e-4


def test_seeds_of_one_sample_are_one_piece_of_evidence() -> None:
    """Copies of a sample's value as further seeds must not make the interval narrower."""
    once = DRAWN[:, :1]
    copied = np.repeat(once[:, :, None], 8, axis=2).mean(axis=2)
    assert_array_equal(bootstrap_intervals(once), bootstrap_intervals(copied))


@pytest.mark.parametrize(("right", "num"), [(0, 30), (30, 30), (7, 20)])
def test_exact_intervals_are_beta_quantiles(right: int, num: int) -> None:
    low = 0.0 if right == 0 else stats.beta.ppf(0.025, right, num - right + 1)
    high = 1.0 if right == num else stats.beta.ppf(0.975, right + 1, num - right)
    assert_allclose(exact_interval(right, num), [low, high], rtol=1e-7)


@pytest.mark.parametrize(("gained", "lost"), [(1, 9), (9, 1), (0, 6), (5, 5), (0, 0)])
def test_mcnemar_is_the_sign_test_of_pairs_that_differ(gained: int, lost: int) -> None:
    first = [0] * gained + [1] * lost + [1, 0, math.nan, 1]
    second = [1] * gained + [0] * lost + [1, 0, 1, math.nan]
    num, few = gained + lost, min(gained, lost)
    tail = sum(math.comb(num, count) for count in range(few + 1)) / 2**num
    assert_allclose(mcnemar_p_value(first, second), min(1.0, 2 * tail))


@pytest.mark.parametrize("size", [4, 9, 12])
def test_sign_flips_are_scipys(size: int) -> None:
    pairs = np.random.default_rng(size).integers(0, 5, (2, size)) / 4
    own = sign_flip_p_values((pairs[0] - pairs[1])[:, None])
    expected = stats.permutation_test(
        (pairs[0], pairs[1]), lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples", n_resamples=np.inf, vectorized=True,
    ).pvalue  # fmt: skip
    assert_allclose(own, [expected])


def test_drawn_flips_are_close_to_all_of_them() -> None:
    differences = np.random.default_rng(2).normal(0.5, 1.0, (12, 2))
    exact = sign_flip_p_values(differences)
    drawn = sign_flip_p_values(differences, flips=4000)
    assert_allclose(drawn, exact, atol=5 * np.sqrt(exact * (1 - exact) / 4000).max())
    assert (drawn != exact).any()
    assert_array_equal(drawn, sign_flip_p_values(differences, flips=4000))


@pytest.mark.parametrize("flips", [50, 9999])
def test_sign_flips_hold_their_level(flips: int) -> None:
    differences = np.random.default_rng(1).integers(-1, 2, (30, 500)).astype(float)
    p_values = sign_flip_p_values(differences, flips=flips)
    assert stats.binomtest(int(np.sum(p_values <= 0.05)), 500, 0.05, "greater").pvalue > 1e-3
    assert p_values.min() >= 1 / (flips + 1)


def test_sign_flips_at_the_edges() -> None:
    differences = np.array([[0.0, np.nan, 2.0], [0.0, np.nan, np.nan]])
    assert_array_equal(sign_flip_p_values(differences), [1.0, np.nan, 1.0])


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # R's p.adjust
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's procedure, Wikipedia
        ([0.6, 0.5], [1.0, 1.0]),
        ([math.nan, 0.02, 0.04], [math.nan, 0.04, 0.04]),
        ([], []),
    ],
)
def test_holm(given: list[float], corrected: list[float]) -> None:
    assert_allclose(holm(given), corrected)


def test_holm_rejects_less_than_no_correction_and_more_than_bonferroni() -> None:
    given = np.random.default_rng(8).uniform(0, 0.2, 20)
    assert ((holm(given) >= given) & (holm(given) <= np.minimum(20 * given, 1))).all()


@pytest.mark.parametrize(
    ("num", "effect"),
    [(33.367, 0.5), (198.15, 0.2), (14.30, 0.8)],  # Cohen's small, medium and large effects
)
def test_detectable_differences_are_the_published_sample_sizes(num: float, effect: float) -> None:
    below, above = (detectable_difference(1.0, round(n)) for n in (num + 0.5, num - 0.5))
    assert below <= effect <= above


def test_detectable_differences_approach_the_normal_formula() -> None:
    quantiles = stats.norm.isf(0.05 / 4 / 2) + stats.norm.isf(0.2)
    expected = 0.3 * quantiles / math.sqrt(10_000)
    assert_allclose(detectable_difference(0.3, 10_000, comparisons=4), expected, rtol=1e-3)


@pytest.mark.parametrize("num", [2, 3, 20])
def test_a_detectable_difference_has_the_power_it_names(num: int) -> None:
    shift = detectable_difference(1.0, num, level=0.1, power=0.6)
    drawn = np.random.default_rng(num).normal(shift, 1.0, (num, 20_000))
    found = int(np.sum(stats.ttest_1samp(drawn, 0.0).pvalue < 0.1))
    assert stats.binomtest(found, 20_000, 0.6).pvalue > 1e-4


@pytest.mark.parametrize("num", [10, 34, 300])
def test_detectable_differences_are_of_the_noncentral_t(num: int) -> None:
    shift = detectable_difference(1.0, num) * math.sqrt(num)
    critical = stats.t.isf(0.025, num - 1)
    power = stats.nct.sf(critical, num - 1, shift) + stats.nct.cdf(-critical, num - 1, shift)
    assert_allclose(power, 0.8, rtol=1e-5)


@pytest.mark.parametrize(("deviation", "num"), [(0.0, 50), (math.nan, 50), (1.0, 1), (1.0, 0)])
def test_without_spread_nothing_is_known_to_be_detectable(deviation: float, num: int) -> None:
    assert math.isnan(detectable_difference(deviation, num))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_intervals([1.0]), "values: 1 axes"),
        (lambda: bootstrap_intervals([[1.0]], confidence=1.0), "confidence: 1.0 is not between"),
        (lambda: bootstrap_intervals([[1.0]], resamples=0), "resamples: 0 is not at least 1"),
        (lambda: sign_flip_p_values([[1.0]], flips=0), "flips: 0 is not at least 1"),
        (lambda: exact_interval(1, 2, confidence=95), "confidence: 95 is not between"),
        (lambda: detectable_difference(1.0, 9, power=0.01), "power: 0.01 is not above"),
        (lambda: detectable_difference(1.0, 9, comparisons=0), "comparisons: 0 is not"),
    ],
)
def test_arguments_out_of_range(call, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        call()


def test_every_pattern_is_counted_once() -> None:
    moving = np.array([1.0, 2.0, 4.0])
    sums = [np.dot(signs, moving) for signs in itertools.product((-1, 1), repeat=3)]
    expected = np.mean([abs(total) >= 7 for total in sums])
    assert_allclose(sign_flip_p_values(moving[:, None]), [expected])

"""The draw: frequencies, ends of the range, rows without a token, independence of the batch."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.strategies import logits
from vlmkit.numeric.counter_rng import uniform
from vlmkit.sampling import Greedy, MinP, SamplerConfig, Temperature, TopK, TopP, build_chain
from vlmkit.sampling.draw import draw_greedy, draw_inverse_cdf

NUM_DRAWS = 100_000
ENDS = (0.0, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0)


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """Return (χ² − degrees of freedom) in standard deviations; cells under 5 are pooled."""
    small = probs * counts.sum() < 5
    observed = np.append(counts[~small], counts[small].sum())
    expected = np.append(probs[~small], probs[small].sum()) * counts.sum()
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(observed) - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize(
    ("configs", "size", "num_draws"),
    [
        ([], 50, NUM_DRAWS),
        ([Temperature(temperature=0.6)], 50, NUM_DRAWS),
        ([TopK(k=7), TopP(p=0.9), Temperature(temperature=1.4)], 50, NUM_DRAWS),
        ([Temperature(temperature=2.0), MinP(p=0.05)], 50, NUM_DRAWS),
        ([Temperature(temperature=0.6)], 2100, NUM_DRAWS // 5),  # drawn block by block
    ],
    ids=["empty", "temperature", "top_k-top_p-temperature", "temperature-min_p", "blocks"],
)
def test_frequencies_follow_the_distribution(
    configs: list[SamplerConfig], size: int, num_draws: int
):
    values = np.random.default_rng(size).normal(size=size).astype(np.float32) * 2
    values[::3] = -np.inf
    chain = build_chain(configs)
    state = chain.init([np.zeros(0, np.int32)], size)
    shaped = np.array(chain.apply(state, mx.array(values[None]), mx.zeros((1, 1))))[0]
    probs = np.exp(shaped.astype(np.float64) - shaped.max())
    probs /= probs.sum()
    numbers = mx.array([[uniform(5, 0, position)] for position in range(num_draws)])
    counts = np.zeros(size)
    for start in range(0, num_draws, 5000):
        chunk = numbers[start : start + 5000]
        rows = mx.broadcast_to(mx.array(values), (len(chunk), size))
        _, drawn = chain.sample(state, rows, chunk)
        np.add.at(counts, np.array(drawn), 1)
    assert counts[probs == 0].sum() == 0
    assert abs(chi_square(counts, probs)) < 4


def test_a_heavy_tail_after_a_likely_token_is_not_lost():
    size = 150_000
    values = np.full(size, np.log(5e-8), np.float32)
    values[0] = 0.0
    share = size * 5e-8
    numbers = mx.array([1 - share / 2, 1 - share / 4])
    drawn = draw_inverse_cdf(mx.broadcast_to(mx.array(values), (2, size)), numbers)
    np.testing.assert_allclose(np.array(drawn) / size, [0.5, 0.75], atol=0.01)


@pytest.mark.parametrize("size", [1, 2, 2048, 2049, 5000])
@pytest.mark.parametrize("number", ENDS)
def test_the_ends_never_draw_a_removed_token(size, number):
    rng = np.random.default_rng(size)
    for _ in range(5):
        values = rng.normal(size=(1, size)).astype(np.float32) * 10
        hidden = rng.random((1, size)) < 0.7
        hidden[0, rng.integers(size)] = False
        values[hidden] = -np.inf
        token_id = draw_inverse_cdf(mx.array(values), mx.array([number])).item()
        assert np.isfinite(values[0, token_id])


@settings(max_examples=scaled(60))
@given(values=logits(), number=st.integers(0, 2**24))
def test_the_drawn_token_has_mass(values, number):
    u = mx.full((len(values),), number * 2.0**-24)
    drawn = np.array(draw_inverse_cdf(mx.array(values), u))
    picked = values[np.arange(len(values)), drawn] - values.max(-1)
    assert (np.exp(picked) > 0).all()


@pytest.mark.parametrize("size", [40, 4100])
def test_draws_follow_the_cumulative_distribution(size):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, size)).astype(np.float32)
    numbers = rng.random(64).astype(np.float32)
    probs = np.exp(values.astype(np.float64))
    probs /= probs.sum(-1, keepdims=True)
    running = np.cumsum(probs, -1)
    drawn = np.array(draw_inverse_cdf(mx.array(values), mx.array(numbers)))
    rows = np.arange(64)
    assert (running[rows, drawn] > numbers - 1e-5).all()
    assert (running[rows, drawn] - probs[rows, drawn] <= numbers + 1e-5).all()


@pytest.mark.parametrize("size", [64, 5000])
def test_a_row_draws_the_same_in_any_batch(size):
    rng = np.random.default_rng(1)
    values = mx.array(rng.normal(size=(16, size)).astype(np.float32))
    numbers = mx.array(rng.random(16).astype(np.float32))
    together = draw_inverse_cdf(values, numbers).tolist()
    alone = [draw_inverse_cdf(values[i : i + 1], numbers[i : i + 1]).item() for i in range(16)]
    order = np.random.default_rng(2).permutation(16)
    permuted = draw_inverse_cdf(values[mx.array(order)], numbers[mx.array(order)]).tolist()
    assert together == alone
    assert [together[i] for i in order] == permuted


def test_greedy_takes_the_lowest_id_on_ties():
    assert draw_greedy(mx.array([[1.0, 7.0, 7.0], [-0.0, 0.0, -1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("configs", [[Greedy()], [], [TopK(k=2), TopP(p=0.9)], [TopP(p=0.5)]])
@pytest.mark.parametrize("size", [30, 9000])
def test_a_row_without_a_token_draws_minus_one(configs, size):
    values = np.zeros((4, size), np.float32)
    values[0] = -np.inf
    values[1, 3] = np.nan
    values[2, 3] = np.inf
    chain = build_chain(configs)
    state = chain.init([np.zeros(0, np.int32)] * 4, size)
    numbers = mx.full((4, 1), 0.3)
    _, drawn = chain.sample(state, mx.array(values), numbers)
    assert drawn.dtype == mx.int32
    assert drawn.tolist()[:3] == [-1, -1, -1]
    assert drawn.tolist()[3] >= 0
    assert (
        chain.draw(chain.apply(state, mx.array(values), numbers), numbers).tolist()[:3] == [-1] * 3
    )

"""Mirostat's first version against the paper's algorithm, row by row in float64."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.effort import scaled
from tests.sampling.strategies import logits
from vlmkit.sampling import MirostatV1, build_chain, build_stage


def best_k(row: NDArray[np.float64], mu: float, num_ranks: int) -> float:
    """Algorithm 1 of the paper: k before it is rounded."""
    probs = np.sort(np.exp(row - row.max()) / np.exp(row - row.max()).sum())[::-1]
    probs = probs[probs > 0]
    over = under = 0.0
    for rank in range(1, min(num_ranks, len(probs))):
        t = math.log((rank + 1) / rank)
        over += t * math.log(probs[rank - 1] / probs[rank])
        under += t * t
    s = over / under
    eps = s - 1
    return float(((eps * 2**mu) / (1 - len(row) ** -eps)) ** (1 / s))


@settings(max_examples=scaled(60))
@given(
    values=logits(only=("normal",), size=60),
    mu=st.floats(0.5, 8.0),
    num_ranks=st.sampled_from([2, 10, 100]),
)
def test_k_is_that_of_the_paper(values: NDArray[np.float32], mu: float, num_ranks: int) -> None:
    assume((np.isfinite(values).sum(-1) >= 2).all())
    stage = build_stage(MirostatV1(tau=mu / 2, num_ranks=num_ranks))
    state = stage.init([np.zeros(0, np.int32)] * len(values), values.shape[1])
    kept = np.isfinite(np.array(stage.apply(state, mx.array(values), None))).sum(-1)
    for row, found in zip(values.astype(np.float64), kept, strict=True):
        ordered = np.sort(row[np.isfinite(row)])[::-1]
        assume(ordered[0] - ordered[min(num_ranks, len(ordered)) - 1] > 0.1)  # not all equal
        k = best_k(row, mu, num_ranks)
        assume(abs(k % 1 - 0.5) > 1e-3 * max(k, 1) or k > 61)
        assert found == min(max(round(k), 1), len(ordered))


@pytest.mark.parametrize("tau", [3.0, 5.0])
def test_it_steers_the_surprise_of_a_zipf_text(tau: float) -> None:
    """On an exact Zipf law the surprise under the incoming distribution settles at tau."""
    size, rows, eta = 2000, 8, 0.1
    rng = np.random.default_rng(0)
    values = (-1.1 * np.log(np.arange(1, size + 1))).astype(np.float32)
    bits = (np.log(np.exp(values.astype(np.float64)).sum()) - values) / math.log(2)
    chain = build_chain([MirostatV1(tau=tau, eta=eta)])
    state = chain.init([np.zeros(0, np.int32)] * rows, size)
    mu, surprises = np.full(rows, 2 * tau), []
    for _ in range(300):
        u = mx.array(rng.random((rows, 1)).astype(np.float32))
        state, drawn = chain.sample(state, mx.broadcast_to(mx.array(values), (rows, size)), u)
        state = chain.update(state, drawn)
        surprises.append(bits[np.array(drawn)])
        mu = mu - eta * (surprises[-1] - tau)
        np.testing.assert_allclose(np.array(state[0].mu), mu, atol=1e-2)
    assert abs(np.mean(surprises[100:]) - tau) < 0.1


def test_a_harmonic_row_has_the_exponent_where_the_formula_divides_by_zero() -> None:
    """s = 1 exactly: ε / (1 − V^−ε) is 1 / ln V there, so k = 2^μ / ln V."""
    size = 4
    values = -np.log(np.arange(1, size + 1))[None]  # two ranks: one drop of ln 2, s = 1 to the bit
    stage = build_stage(MirostatV1(tau=1.0, num_ranks=2))
    out = stage.apply(stage.init([[]], size), mx.array(values.astype(np.float32)), None)
    assert np.isfinite(np.array(out)).sum() == round(4 / math.log(4))

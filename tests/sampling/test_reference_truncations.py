"""The entropy-based and other truncations against numpy float64, and against other toolkits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.contract import VOCAB_SIZE
from tests.sampling.strategies import logits
from tests.sampling.test_laws import assert_same_distribution, log_softmax, no_knife_edge, run
from tests.sampling.test_peers import TAME, has_ties
from tests.sampling.test_reference import ranking
from vlmkit.sampling import (
    DynamicTemperature,
    EpsilonCutoff,
    EtaCutoff,
    MirostatV2,
    PLess,
    Quadratic,
    TailFree,
    TopH,
    TopNSigma,
    TypicalP,
    Xtc,
    build_chain,
    build_stage,
)

LAW = settings(max_examples=scaled(25))
DISTINCT = ("normal", "nearly flat", "peaked")


def support(config, values, u=None):
    return ~np.isneginf(run(config, values, u=u))


def entropy_terms(row: np.ndarray) -> np.ndarray:
    logprobs = log_softmax(row)
    return -np.exp(logprobs) * np.where(np.isneginf(logprobs), 0, logprobs)


@LAW
@given(values=logits(only=DISTINCT), p=st.sampled_from([0.2, 0.6, 0.95]))
def test_typical_p(values, p):
    config = TypicalP(p=p)
    assume(no_knife_edge(config, values))
    kept = support(config, values)
    for row, got in zip(values, kept, strict=True):
        logprobs = log_softmax(row)
        finite = np.flatnonzero(np.isfinite(logprobs))
        distance = np.abs(-logprobs[finite] - entropy_terms(row).sum())
        # Two tokens on either side of H may be equally close within rounding.
        if np.diff(np.sort(distance)).min(initial=1.0) < 1e-5:
            continue
        order = finite[np.argsort(distance)]
        above = np.cumsum(np.exp(logprobs[order])) - np.exp(logprobs[order])
        assert set(order[above < p]) == set(np.flatnonzero(got))


@LAW
@given(values=logits(), n=st.sampled_from([0.4, 1.0, 2.3]))
def test_top_n_sigma(values, n):
    config = TopNSigma(n=n)
    assume(no_knife_edge(config, values))
    for row, got in zip(values.astype(np.float64), support(config, values), strict=True):
        sigma = row[np.isfinite(row)].std()
        np.testing.assert_array_equal(got, np.isfinite(row) & (row >= row.max() - n * sigma))


@LAW
@given(values=logits(), epsilon=st.sampled_from([0.003, 0.05, 0.5]))
def test_epsilon_and_eta(values, epsilon):
    probs = np.exp(log_softmax(values))
    entropies = np.array([[entropy_terms(row).sum()] for row in values])
    top = values == values.max(-1, keepdims=True)
    eta = np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-entropies))
    for config, cutoff in (
        (EpsilonCutoff(epsilon=epsilon), epsilon),
        (EtaCutoff(epsilon=epsilon), eta),
    ):
        if no_knife_edge(config, values):
            expected = ((probs >= cutoff) | top) & np.isfinite(values)
            np.testing.assert_array_equal(support(config, values), expected)


@LAW
@given(values=logits(only=DISTINCT), h=st.sampled_from([0.2, 0.5, 0.9]))
def test_top_h(values, h):
    config = TopH(h=h)
    assume(no_knife_edge(config, values))
    for row, got in zip(values, support(config, values), strict=True):
        order = ranking(row)
        terms = entropy_terms(row)[order]
        count = max(1, int((np.cumsum(terms) <= h * terms.sum()).sum()))
        finite = set(np.flatnonzero(np.isfinite(row)))
        assert set(np.flatnonzero(got)) == set(order[:count]) & finite


def test_top_h_drops_what_has_no_mass():
    values = np.array([[0.0, -200.0, -300.0], [1e30, 2e30, -1e30]], np.float32)
    assert support(TopH(h=0.9), values).tolist() == [[True, False, False], [False, True, False]]


@LAW
@given(values=logits(only=("normal", "peaked")))
def test_p_less(values):
    probs = np.exp(log_softmax(values))
    cutoff = (probs**2).sum(-1, keepdims=True)
    assume((np.abs(probs / cutoff - 1) > 1e-5).all())
    np.testing.assert_array_equal(support(PLess(), values), probs >= cutoff)


@LAW
@given(values=logits(only=DISTINCT), z=st.sampled_from([0.2, 0.7, 0.95]))
def test_tail_free(values, z):
    config = TailFree(z=z)
    assume(no_knife_edge(config, values))
    for row, got in zip(values, support(config, values), strict=True):
        order = ranking(row)
        bends = np.abs(np.diff(np.exp(log_softmax(row))[order], 2))
        if bends.sum() < 1e-6:
            continue  # no curvature beyond rounding
        shares = np.cumsum(bends) / bends.sum()
        kept = [True] + [shares[min(rank - 1, len(shares) - 1)] <= z for rank in range(1, len(row))]
        expected = set(order[np.array(kept)]) & set(np.flatnonzero(np.isfinite(row)))
        assert set(np.flatnonzero(got)) == expected


@LAW
@given(
    values=logits(),
    threshold=st.sampled_from([0.02, 0.1, 0.4]),
    protected_ids=st.sampled_from([(), (3, 8)]),
)
def test_xtc(values, threshold, protected_ids):
    config = Xtc(probability=0.5, threshold=threshold, protected_ids=protected_ids)
    assume(no_knife_edge(config, values))
    probs = np.exp(log_softmax(values))
    assume((np.abs(probs - threshold) > 1e-6).all())
    u = np.linspace(0.0, 0.9, len(values))
    for row, mass, number, got in zip(values, probs, u, support(config, values, u), strict=True):
        expected = np.isfinite(row)
        likely = mass >= threshold
        if number < 0.5 and likely.any():
            drop = likely & (row > row[likely].min())
            drop[list(protected_ids)] = False
            expected &= ~drop
        np.testing.assert_array_equal(got, expected)


@LAW
@given(values=logits(only=("normal", "flat", "ties", "one finite")))
def test_dynamic_temperature(values):
    config = DynamicTemperature(min_temperature=0.5, max_temperature=2.0, exponent=1.5)
    expected = []
    for row in values.astype(np.float64):
        count = np.isfinite(row).sum()
        share = entropy_terms(row).sum() / np.log(count) if count > 1 else 0.0
        expected.append((row - row.max()) / (0.5 + 1.5 * share**1.5))
    np.testing.assert_allclose(run(config, values), np.array(expected), rtol=1e-4, atol=1e-5)


@LAW
@given(values=logits(only=("normal", "peaked", "ties")), factor=st.sampled_from([0.1, 2.0]))
def test_quadratic(values, factor):
    wide = values.astype(np.float64)
    top = wide.max(-1, keepdims=True)
    expected = -factor * (wide - top) ** 2 + top
    np.testing.assert_allclose(
        run(Quadratic(factor=factor), values), expected, rtol=1e-5, atol=1e-4
    )


def test_mirostat_steers_the_surprise():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200).astype(np.float32) * 4
    sampler = build_chain([MirostatV2(tau=3.0, eta=0.2)])
    rows = 8
    state = sampler.init([np.zeros(0, np.int32)] * rows, 200)
    surprises = []
    mu = np.full(rows, 6.0)
    bits = -log_softmax(values) / np.log(2)
    for _ in range(300):
        u = mx.array(rng.random((rows, 1)).astype(np.float32))
        state, drawn = sampler.sample(state, mx.broadcast_to(mx.array(values), (rows, 200)), u)
        seen = bits[np.array(drawn)]
        assert (seen <= np.maximum(mu, bits.min()) + 1e-4).all()
        mu = mu - 0.2 * (seen - 3.0)
        state = sampler.update(state, drawn)
        np.testing.assert_allclose(np.array(state[0].mu), mu, atol=1e-2)
        surprises.append(seen)
    assert abs(np.mean(surprises[100:]) - 3.0) < 0.1


def test_2_xtc_decides_per_row():
    """A threshold over the whole batch let rows leak into each other."""
    values = np.log(np.array([[0.5, 0.4, 0.1], [0.4, 0.35, 0.25]], np.float32))
    kept = support(Xtc(probability=1.0, threshold=0.2), values)
    assert kept.tolist() == [[False, True, True], [False, False, True]]


def test_3_typical_after_a_mask_has_a_finite_entropy():
    values = np.log(np.array([[0.5, 0.3, 0.1, 0.1]], np.float32))
    masked = np.where([[True, True, False, False]], values, -np.inf).astype(np.float32)
    kept = support(TypicalP(p=0.3), masked)
    np.testing.assert_array_equal(
        kept, np.pad(support(TypicalP(p=0.3), masked[:, :2]), ((0, 0), (0, 2)))
    )
    assert kept.sum() == 1


@pytest.mark.parametrize("size", [2, 3, 7, 1000, 151_936])
def test_4_p_less_keeps_everything_on_uniform_logits(size):
    stage = build_stage(PLess())
    out = stage.apply((), mx.full((2, size), 0.3), None)
    assert mx.isfinite(out).all().item()


@pytest.mark.torch
@settings(max_examples=scaled(60))
@given(values=logits(only=TAME), p=st.sampled_from([0.2, 0.9]), cut=st.sampled_from([0.01, 0.3]))
def test_transformers(values, p, cut):
    import torch
    from transformers import EpsilonLogitsWarper, EtaLogitsWarper, TopHLogitsWarper

    pairs = [
        (EpsilonCutoff(epsilon=cut), EpsilonLogitsWarper(cut)),
        (EtaCutoff(epsilon=cut), EtaLogitsWarper(cut)),
    ]
    if not has_ties(values) and np.isfinite(values).all():  # it takes ln 0 as it comes
        pairs.append((TopH(h=p), TopHLogitsWarper(p)))
    for config, warper in pairs:
        if no_knife_edge(config, values):
            peer = warper(None, torch.tensor(values)).numpy()
            assert_same_distribution(run(config, values), peer, atol=1e-6)


@pytest.mark.mlx_vlm
@settings(max_examples=scaled(40))
@given(values=logits(only=("normal", "nearly flat")), n=st.sampled_from([0.5, 1.5]))
def test_mlx_vlm(values, n):
    from mlx_vlm.sample_utils import apply_p_less, apply_top_n_sigma

    assume(np.isfinite(values).all())
    for config, peer in (
        (TopNSigma(n=n), apply_top_n_sigma(mx.array(values), n)),
        (PLess(), apply_p_less(mx.array(values), 1.0)),
    ):
        if no_knife_edge(config, values):
            assert_same_distribution(run(config, values), np.array(peer))


def test_the_vocabulary_is_large_enough_for_the_tables():
    assert VOCAB_SIZE < 100  # transformers' top_h looks at 100 tokens only

"""The numbers against numpy and scipy, on logits that are at hand."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import binomtest, entropy

from vlmkit.experiment.kv_eval.measures import compare_logits, layer_deviation, relative_l2
from vlmkit.experiment.kv_eval.records import LockstepRecord
from vlmkit.experiment.kv_eval.summary import PROMPT_IMAGE, PROMPT_TEXT, summarise
from vlmkit.experiment.records import Record


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 30.0])
def test_divergence_is_that_of_scipy(scale: float) -> None:
    generator = np.random.default_rng(3)
    reference = generator.normal(0, 4, (40, 500)).astype(np.float32)
    variant = reference + generator.normal(0, scale, reference.shape).astype(np.float32)
    token_ids = generator.integers(0, 500, 40)
    found = compare_logits(mx.array(reference), mx.array(variant), mx.array(token_ids))
    ours, theirs = (log_softmax(x.astype(np.float64), axis=1) for x in (reference, variant))
    expected = entropy(np.exp(ours), np.exp(theirs), axis=1)
    np.testing.assert_allclose(np.array(found.kl), expected, rtol=2e-3, atol=1e-12)
    agrees = reference.argmax(1) == variant.argmax(1)
    assert np.array(found.agrees).tolist() == agrees.tolist()
    delta = np.take_along_axis(theirs - ours, token_ids[:, None], 1)[:, 0]
    np.testing.assert_allclose(np.array(found.delta_logprobs), delta, atol=2e-5)


@settings(max_examples=40)
@given(st.lists(st.floats(-80, 80, width=32), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_divergence_is_a_number_that_is_never_negative(values: list[float], seed: int) -> None:
    reference = np.array([values], np.float32)
    variant = np.random.default_rng(seed).permutation(reference, axis=1)
    token = mx.array([0])
    kl = compare_logits(mx.array(reference), mx.array(variant), token).kl.item()
    assert isinstance(kl, float)
    assert math.isfinite(kl)
    assert kl >= 0
    same = compare_logits(mx.array(reference), mx.array(reference), token)
    assert (same.kl.item(), same.agrees.item(), same.delta_logprobs.item()) == (0, True, 0)


def test_layer_deviation_is_that_of_numpy() -> None:
    generator = np.random.default_rng(0)
    layers = [generator.normal(size=(3, 4, 1, 8)).astype(np.float32) for _ in range(2)]
    others = [layer + generator.normal(0, 0.1, layer.shape).astype(np.float32) for layer in layers]
    squares = np.array(layer_deviation([*map(mx.array, layers)], [*map(mx.array, others)]))
    for place, (one, two) in enumerate(zip(layers, others, strict=True)):
        for row in range(3):
            expected = np.linalg.norm(two[row] - one[row]) / np.linalg.norm(one[row])
            (found,) = relative_l2(squares[:1, place, row], squares[1:, place, row])
            assert found == pytest.approx(expected, rel=1e-5)


def record(arm: str, sample: int, kl: list[float], agrees: list[bool]) -> LockstepRecord:
    return LockstepRecord(
        arm=arm,
        sample=str(sample),
        seed=0,
        prompt_tokens=4,
        images=[(1, 3)],
        prompt_kl=[kl[0], 2 * kl[0], 3 * kl[0]],
        kl=kl,
        agrees=agrees,
        delta_logprobs=[-x for x in kl],
        held_bytes=100 if arm == "dense" else 25,
    )


def test_a_summary_is_made_of_its_records() -> None:
    generator = np.random.default_rng(5)
    values = {n: generator.exponential(1, generator.integers(1, 9)).tolist() for n in range(20)}
    right = {n: (generator.random(len(kl)) < 0.8).tolist() for n, kl in values.items()}
    rows = [record("dense", n, [0.0] * len(kl), [True] * len(kl)) for n, kl in values.items()]
    rows += [record("small", n, kl, right[n]) for n, kl in values.items()]
    texts = [Record(arm="dense", sample=str(n), seed=0, token_ids=[1, 2, 3]) for n in values]
    texts += [
        Record(arm="small", sample=str(n), seed=0, token_ids=[1, 2, 3] if n % 4 else [1, 7])
        for n in values
    ]
    base, small = summarise(["dense", "small"], rows, texts, {})
    flat = np.concatenate([*values.values()])
    assert base.is_baseline
    assert base.kl is not None
    assert base.kl.max == 0
    assert base.bytes_ratio == 1
    assert small.bytes_ratio == 0.25
    assert small.kl is not None
    assert small.kl.positions == len(flat)
    assert small.kl.mean == pytest.approx(flat.mean())
    assert small.kl.p99 == pytest.approx(np.quantile(flat, 0.99))
    assert small.kl.p999 == pytest.approx(np.quantile(flat, 0.999))
    assert small.kl.max == flat.max()
    # the delta method for a ratio of two sums, written out
    sums, sizes = (np.array([f(kl) for kl in values.values()]) for f in (sum, len))
    gradient = np.array([1 / sizes.mean(), -sums.mean() / sizes.mean() ** 2])
    variance = gradient @ np.cov(sums, sizes) @ gradient / len(values)
    assert small.kl.se == pytest.approx(variance**0.5)
    agrees = np.concatenate([*right.values()])
    interval = binomtest(int(agrees.sum()), agrees.size).proportion_ci(method="wilson")
    assert small.agreement == pytest.approx(agrees.mean())
    assert small.agreement_interval == (interval.low, interval.high)
    assert small.delta_logprob == pytest.approx(-flat.mean())
    assert small.slices[PROMPT_IMAGE].positions == 40
    assert small.slices[PROMPT_TEXT].mean == pytest.approx(np.mean([k[0] for k in values.values()]))
    assert small.running is not None
    assert small.running.exact == 0.75
    assert small.running.divergence == 1.0
    assert small.running.tokens == pytest.approx(2.75)

"""Each stage against its definition in numpy float64, written the slow and obvious way."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.contract import VOCAB_SIZE
from tests.sampling.strategies import histories, logits
from tests.sampling.test_laws import log_softmax, run
from vlmkit.numeric.probabilities import mass_above
from vlmkit.sampling import (
    FrequencyPenalty,
    LogitBias,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)
from vlmkit.sampling.numerics import keep_ranks, largest

LAW = settings(max_examples=scaled(30))


def ranking(row: np.ndarray) -> np.ndarray:
    """Ids from the largest logit to the smallest, the lowest id first on ties."""
    return np.array(sorted(range(len(row)), key=lambda i: (-row[i], i)))


@LAW
@given(values=logits(), temperature=st.sampled_from([0.05, 0.5, 1.0, 3.0]))
def test_temperature(values, temperature):
    out = run(Temperature(temperature=temperature), values)
    wide = values.astype(np.float64)
    np.testing.assert_allclose(
        np.exp(log_softmax(out)),
        np.exp(log_softmax((wide - wide.max(-1, keepdims=True)) / temperature)),
        atol=2e-5,
    )


@LAW
@given(values=logits(), k=st.integers(1, VOCAB_SIZE + 3))
def test_top_k(values, k):
    out = run(TopK(k=k), values)
    for row, got in zip(values, out, strict=True):
        expected = np.full_like(row, -np.inf)
        expected[ranking(row)[:k]] = row[ranking(row)[:k]]
        np.testing.assert_array_equal(got, expected)


@LAW
@given(values=logits(), p=st.sampled_from([0.001, 0.2, 0.5, 0.9, 0.95, 0.999]))
def test_top_p(values, p):
    probs = np.exp(log_softmax(values))
    out = run(TopP(p=p), values)
    for row, mass, got in zip(values, probs, out, strict=True):
        order = ranking(row)
        above = np.cumsum(mass[order]) - mass[order]
        certain, possible = order[above < p - 1e-6], order[above < p + 1e-6]
        kept = set(np.flatnonzero(~np.isneginf(got)))
        finite = set(np.flatnonzero(~np.isneginf(row)))
        assert set(certain) & finite <= kept <= set(possible) & finite


@LAW
@given(values=logits(), p=st.sampled_from([0.001, 0.05, 0.5, 1.0]))
def test_min_p(values, p):
    wide = values.astype(np.float64)
    distance = wide - wide.max(-1, keepdims=True) - np.log(p)
    assume((np.abs(distance[np.isfinite(distance)]) > 1e-6).all() or p == 1.0)
    kept = ~np.isneginf(run(MinP(p=p), values))
    np.testing.assert_array_equal(kept, (distance >= 0) & ~np.isneginf(values))


@LAW
@given(values=logits(), temperature=st.sampled_from([0.5, 2.0]), p=st.sampled_from([0.04, 0.3]))
def test_min_p_after_temperature(values, temperature, p):
    """min_p m after temperature T keeps what min_p m^T keeps before it."""
    wide = values.astype(np.float64)
    distance = (wide - wide.max(-1, keepdims=True)) / temperature - np.log(p)
    assume((np.abs(distance[np.isfinite(distance)]) > 1e-5).all())
    after = run(MinP(p=p), run(Temperature(temperature=temperature), values))
    before = run(MinP(p=p**temperature), values)
    # A division may also sink a hopeless logit to −inf; what is kept is the same.
    np.testing.assert_array_equal(np.isneginf(after), np.isneginf(before))


def tokens_so_far(prompts, steps, row, excluded_ids=(), include_prompt=True):
    ids = [*(prompts[row].tolist() if include_prompt else []), *steps[:, row].tolist()]
    return [token_id for token_id in ids if token_id not in excluded_ids]


@LAW
@given(
    data=st.data(),
    penalty=st.sampled_from([0.5, 1.1, 2.0]),
    context_size=st.none() | st.integers(1, 20),
    excluded_ids=st.sampled_from([(), (0, 3)]),
)
def test_repetition_penalty(data, penalty, context_size, excluded_ids):
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    config = RepetitionPenalty(
        penalty=penalty, context_size=context_size, excluded_ids=excluded_ids
    )
    out = run(config, values, prompts, steps)
    for row, got in enumerate(out):
        expected = values[row].copy()
        for token_id in set(
            tokens_so_far(prompts, steps, row, excluded_ids)[-(context_size or 0) :]
        ):
            z = values[row, token_id]
            expected[token_id] = z / penalty if z > 0 else z * penalty
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@LAW
@given(
    data=st.data(),
    kind=st.sampled_from([PresencePenalty, FrequencyPenalty]),
    penalty=st.sampled_from([-0.5, 0.3, 1.5]),
    context_size=st.none() | st.integers(1, 20),
    include_prompt=st.booleans(),
    excluded_ids=st.sampled_from([(), (0, 3)]),
)
def test_count_penalties(data, kind, penalty, context_size, include_prompt, excluded_ids):
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    config = kind(
        penalty=penalty,
        context_size=context_size,
        include_prompt=include_prompt,
        excluded_ids=excluded_ids,
    )
    out = run(config, values, prompts, steps)
    for row, got in enumerate(out):
        ids = tokens_so_far(prompts, steps, row, excluded_ids, include_prompt)
        counts = np.bincount(
            ids[-context_size:] if context_size else ids, minlength=VOCAB_SIZE
        ).astype(np.float64)
        counts = np.minimum(counts, 1) if kind is PresencePenalty else counts
        np.testing.assert_allclose(got, values[row] - penalty * counts, rtol=1e-6, atol=1e-6)


@LAW
@given(values=logits())
def test_logit_bias(values):
    out = run(LogitBias(bias={0: 1.5, 5: -2.0}), values)
    expected = values.copy()
    expected[:, 0] += 1.5
    expected[:, 5] -= 2.0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("size", [1000, 4096, 5001, 30_011])
@pytest.mark.parametrize("k", [1, 2, 50, 999])
@pytest.mark.parametrize("kind", ["normal", "ties", "flat", "hidden"])
def test_largest(size, k, kind):
    rng = np.random.default_rng(size + k)
    values = rng.normal(size=(3, size)).astype(np.float32)
    if kind == "ties":
        values = np.round(values)
    elif kind == "flat":
        values[:] = 0.25
    elif kind == "hidden":
        values[:, rng.random(size) < 0.9] = -np.inf
    ids = np.array(largest(mx.array(values), k))
    for row, got in zip(values, ids, strict=True):
        np.testing.assert_array_equal(got, np.sort(np.argsort(-row, kind="stable")[:k]))


@pytest.mark.parametrize("size", [1, 255, 256, 257, 100_000])
def test_mass_above(size):
    probs = np.random.default_rng(0).random((2, size)).astype(np.float32) / size
    got = np.array(mass_above(mx.array(probs)))
    wide = probs.astype(np.float64)
    np.testing.assert_allclose(got, np.cumsum(wide, -1) - wide, atol=3e-6)


@settings(max_examples=scaled(30))
@given(values=logits(), data=st.data())
def test_keep_ranks(values, data):
    rows = len(values)
    num = np.array(data.draw(st.lists(st.integers(1, VOCAB_SIZE), min_size=rows, max_size=rows)))
    ordered = -np.sort(-values, axis=-1)
    keep = np.array(keep_ranks(mx.array(values), mx.array(ordered), mx.array(num[:, None])))
    for row, count, got in zip(values, num, keep, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(got), np.sort(ranking(row)[:count]))


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, 12.0])
@pytest.mark.parametrize("p", [0.5, 0.95])
def test_top_p_on_a_large_vocabulary_equals_a_full_sort(scale, p):
    """The three sizes of the partial selection, and ties at the cut."""
    rng = np.random.default_rng(int(scale * 10))
    values = (rng.normal(size=(2, 140_000)) * scale).astype(np.float32)
    values[1] = np.round(values[1])
    probs = np.exp(log_softmax(values))
    kept = ~np.isneginf(run(TopP(p=p), values))
    for row in range(2):
        order = np.argsort(-values[row], kind="stable")
        above = np.cumsum(probs[row][order]) - probs[row][order]
        expected = int((above < p).sum())
        num_kept = int(kept[row].sum())
        assert abs(num_kept - expected) <= max(1, 3e-6 * expected / p + 2e-6 / probs[row].min())
        np.testing.assert_array_equal(np.flatnonzero(kept[row]), np.sort(order[:num_kept]))

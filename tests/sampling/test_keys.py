"""Keys: a row's token hangs on its own logits, state and numbers, whoever draws it beside what."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map
from numpy.typing import NDArray

from tests.effort import scaled
from tests.sampling.contract import CONTRACT, VOCAB_SIZE, build_chain
from tests.sampling.test_draw import chi_square
from vlmkit.numeric.counter_rng import uniforms
from vlmkit.sampling import MirostatV2, RepetitionPenalty, Temperature, TopK, TopP, Xtc

NUM_DRAWS = 100_000
NUM_ROWS = 12
NUM_STEPS = 6
CHAIN: list[Any] = [
    RepetitionPenalty(penalty=1.3),
    Xtc(probability=0.5, threshold=0.1),
    TopK(k=12),
    MirostatV2(tau=2.0, eta=0.4),
    Temperature(temperature=1.2),
    Xtc(probability=0.3, threshold=0.2),
]


def draw_rows(samples: Sequence[int]) -> list[list[int]]:
    """Draw a few tokens for each sample number, in one batch, as the decode loop does it."""
    rng = np.random.default_rng(3)
    table = mx.array((rng.normal(size=(VOCAB_SIZE, VOCAB_SIZE)) * 2).astype(np.float32))
    sampler = build_chain(CHAIN)
    state = sampler.init([np.array([sample], np.int32) for sample in samples], VOCAB_SIZE)
    tokens, out = mx.array(list(samples)), []
    for position in range(NUM_STEPS):
        numbers = mx.array([uniforms(9, one, position, 1 + sampler.num_random) for one in samples])
        state, tokens = sampler.sample(state, table[tokens], numbers)
        state = sampler.update(state, tokens)
        out.append(tokens.tolist())
    return np.array(out).T.tolist()


EXPECTED = draw_rows(range(NUM_ROWS))


@settings(max_examples=scaled(10))
@given(order=st.permutations(range(NUM_ROWS)))
def test_permuting_rows_permutes_their_draws(order: list[int]) -> None:
    assert draw_rows(order) == [EXPECTED[sample] for sample in order]


@settings(max_examples=scaled(10))
@given(cuts=st.sets(st.integers(1, NUM_ROWS - 1), max_size=4))
def test_splitting_a_batch_changes_no_draw(cuts: set[int]) -> None:
    bounds = [0, *sorted(cuts), NUM_ROWS]
    parts = [draw_rows(range(a, b)) for a, b in itertools.pairwise(bounds)]
    assert [row for part in parts for row in part] == EXPECTED


def test_other_threads_draw_the_same() -> None:
    """Each row on a thread of its own, several at once, and all rows on each thread."""
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda sample: draw_rows([sample])[0], range(NUM_ROWS)))
        together = list(pool.map(draw_rows, [range(NUM_ROWS)] * 4))
    assert alone == EXPECTED
    assert together == [EXPECTED] * 4


def mixture(sampler: Any, state: Any, values: mx.array) -> NDArray[np.float64]:
    """The exact probabilities of one row's draw, averaged over the coins of xtc."""
    total = np.zeros(VOCAB_SIZE)
    shares = [stage for stage in sampler.stages if stage.is_random]
    for coin, share in ((0.0, 0.5), (0.99, 0.5)) if shares else ((0.0, 1.0),):
        numbers = mx.full((1, 1 + sampler.num_random), coin)
        shaped = np.array(sampler.apply(state, values, numbers))[0].astype(np.float64)
        weights = np.exp(shaped - shaped.max())
        total += share * weights / weights.sum()
    return total


@pytest.fixture(scope="module")
def numbers() -> NDArray[np.float32]:
    """The numbers of one row at many positions, for the draw and one random stage."""
    return np.array([uniforms(5, 0, position, 2) for position in range(NUM_DRAWS)], np.float32)


@pytest.mark.parametrize("kind", sorted(CONTRACT))
def test_frequencies_of_every_stage_follow_its_distribution(
    kind: str, numbers: NDArray[np.float32]
) -> None:
    """χ² of 10⁵ draws at fixed keys, after a history, against what the stage leaves."""
    config = Xtc(probability=0.5, threshold=0.1) if kind == "xtc" else CONTRACT[kind].configs[-1]
    sampler = build_chain([config])
    values = np.random.default_rng(11).normal(size=(1, VOCAB_SIZE)).astype(np.float32)
    values[0, 5:9] = -np.inf
    state = sampler.init([np.array([1, 2, 9, 1], np.int32)], VOCAB_SIZE)
    probs = mixture(sampler, state, mx.array(values))
    counts, size = np.zeros(VOCAB_SIZE), 10_000
    states = tree_map(lambda leaf: mx.repeat(leaf, size, axis=0), state)
    rows = mx.repeat(mx.array(values), size, axis=0)
    for start in range(0, NUM_DRAWS, size):
        chunk = numbers[start : start + size, : 1 + sampler.num_random]
        _, drawn = sampler.sample(states, rows, mx.array(chunk))
        np.add.at(counts, np.array(drawn), 1)
    assert counts[probs == 0].sum() == 0
    if (probs > 0).sum() > 1:
        assert abs(chi_square(counts, probs)) < 4


def test_a_coin_says_nothing_about_the_draw() -> None:
    """Of the draws in which xtc acts, each token has its share, and likewise of the others."""
    sampler = build_chain([Xtc(probability=0.5, threshold=0.3), TopP(p=1.0)])
    values = mx.log(mx.array([[0.4, 0.35, 0.15, 0.1]]))
    table = np.array([uniforms(2, 7, position, 2) for position in range(20_000)], np.float32)
    rows = mx.repeat(values, len(table), axis=0)
    drawn = np.array(sampler.sample(((), ()), rows, mx.array(table))[1])
    acts = table[:, 1] < 0.5
    for which, probs in ((acts, [0, 0.35, 0.15, 0.1]), (~acts, [0.4, 0.35, 0.15, 0.1])):
        counts = np.bincount(drawn[which], minlength=4)
        assert abs(chi_square(counts, np.array(probs) / np.sum(probs))) < 4

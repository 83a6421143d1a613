"""pass@k and majority@k against a count over all choices of seeds."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from vlmkit.errors import VlmkitError
from vlmkit.experiment.votes import NO_ANSWER, majority_at_k, pass_at_k


@pytest.mark.parametrize("k", range(1, 6))
def test_pass_at_k_counts_choices(k: int) -> None:
    right = np.random.default_rng(0).integers(0, 2, (20, 5))
    expected = [
        np.mean([max(choice) for choice in itertools.combinations(row, k)]) for row in right
    ]
    assert_allclose(pass_at_k(right, k), expected)


def test_pass_at_k_is_the_papers_product_for_many_seeds() -> None:
    """The numerically stable form of the paper's figure 3: 1 − Π (1 − k / i)."""
    num, num_right, k = 200, 13, 10
    product = np.prod(1.0 - k / np.arange(num - num_right + 1, num + 1))
    row = np.zeros((1, num))
    row[0, :num_right] = 1
    assert_allclose(pass_at_k(row, k), [1 - product])


def vote(values: tuple[float, ...], labels: tuple[int, ...]) -> float:
    counts = Counter(label for label in labels if label != NO_ANSWER)
    if not counts:
        return float(np.mean(values))
    most = max(counts.values())
    winners = [label for label, count in counts.items() if count == most]
    return float(
        np.mean([
            np.mean([v for v, other in zip(values, labels, strict=True) if other == label])
            for label in winners
        ])
    )  # fmt: skip


@pytest.mark.parametrize("k", range(1, 6))
def test_majority_at_k_counts_choices(k: int) -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, (30, 5))
    values = generator.uniform(0, 1, (30, 5))
    expected = [
        np.mean([
            vote(tuple(row[list(choice)]), tuple(answers[list(choice)]))
            for choice in itertools.combinations(range(5), k)
        ])
        for row, answers in zip(values, labels, strict=True)
    ]  # fmt: skip
    assert_allclose(majority_at_k(values, labels, k), expected)


def test_one_vote_is_the_mean_and_a_majority_outvotes() -> None:
    values, labels = [[1, 0, 0, 1, 1]], [[5, 6, 6, 5, 5]]
    assert_allclose(majority_at_k(values, labels, 1), [0.6])
    assert_allclose(majority_at_k(values, labels, 2), [0.6])  # two that tie share the vote
    assert_allclose(majority_at_k(values, labels, 5), [1.0])


def test_many_choices_are_drawn_by_seed() -> None:
    generator = np.random.default_rng(2)
    values, labels = generator.integers(0, 2, (200, 20)), generator.integers(1, 4, (200, 20))
    first = majority_at_k(values, labels, 10, seed=4)
    assert_array_equal(first, majority_at_k(values, labels, 10, seed=4))
    assert (first != majority_at_k(values, labels, 10, seed=5)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k([[1, 0]], 3), "k: 3 of 2 seeds; it is from 1 to 2"),
        (lambda: pass_at_k([1, 0], 1), "values: 1 axes"),
        (lambda: pass_at_k([[0.5, 0]], 1), "pass@k: values are 0 or 1"),
        (lambda: majority_at_k([[1, 0]], [[1, 1]], 0), "k: 0 of 2 seeds"),
    ],
)
def test_arguments_out_of_range(call, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        call()

"""What several seeds of one sample are worth together: pass@k and majority@k.

Both are exact expectations over the choice of k of the seeds that were run, not one draw of them.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmkit.errors import VlmkitError

FloatArray = NDArray[np.float64]
NO_ANSWER = 0  # the label of a response in which no answer was found
_MAX_SUBSETS = 256


def pass_at_k(right: ArrayLike, k: int) -> FloatArray:
    """The chance that at least one of k seeds is right, for each sample.

    Args:
        right: [samples, seeds] of 0 and 1.
        k: seeds that are chosen, from 1 to all.

    Returns:
        [samples] float in [0, 1]: ``1 − C(n − c, k) / C(n, k)`` with c of n seeds right.

    Raises:
        VlmkitError: ``k`` out of range, or values that are neither 0 nor 1.

    Reference:
        Chen et al., *Evaluating Large Language Models Trained on Code* (2021, arXiv:2107.03374),
        equation 1.

    Example:
        >>> pass_at_k([[1, 0, 0, 0], [0, 0, 0, 0]], 2).tolist()
        [0.5, 0.0]
    """
    table = np.asarray(right, np.float64)
    num_seeds = _check_k(table, k)
    if not np.isin(table, (0.0, 1.0)).all():
        raise VlmkitError("pass@k: values are 0 or 1; this metric has others")
    whole = math.comb(num_seeds, k)
    ways = np.array([math.comb(wrong, k) / whole for wrong in range(num_seeds + 1)])
    return np.asarray(1 - ways[num_seeds - table.sum(axis=1).astype(int)], np.float64)


def majority_at_k(values: ArrayLike, labels: ArrayLike, k: int, *, seed: int = 0) -> FloatArray:
    """The expected score of the most frequent answer among k seeds, for each sample.

    Answers that tie share the vote. A response without an answer has no vote, unless all have
    none. With more than 256 choices of k seeds, 256 of them are drawn.

    Args:
        values: [samples, seeds] float: the score of each response.
        labels: [samples, seeds] int: equal for equal answers; 0: no answer was found.
        k: seeds that vote, from 1 to all.
        seed: of the generator that draws choices.

    Returns:
        [samples] float.

    Raises:
        VlmkitError: ``k`` out of range.

    Reference:
        Wang et al., *Self-Consistency Improves Chain of Thought Reasoning in Language Models*
        (2023, arXiv:2203.11171).

    Example:
        >>> majority_at_k([[1, 0, 1]], [[7, 8, 7]], 3).tolist()
        [1.0]
    """
    table = np.asarray(values, np.float64)
    answers = np.asarray(labels, np.int64)
    num_seeds = _check_k(table, k)
    choices = _choices(num_seeds, k, seed)
    total = np.zeros(len(table))
    for choice in choices:
        chosen, score = answers[:, choice], table[:, choice]
        votes = (chosen[:, :, None] == chosen[:, None, :]).sum(axis=2)
        votes[chosen == NO_ANSWER] = 0
        winning = votes == votes.max(axis=1, keepdims=True)
        total += np.sum(score * winning, axis=1) / winning.sum(axis=1)
    return total / len(choices)


def _choices(num_seeds: int, k: int, seed: int) -> list[list[int]]:
    if math.comb(num_seeds, k) <= _MAX_SUBSETS:
        return [list(choice) for choice in itertools.combinations(range(num_seeds), k)]
    generator = np.random.default_rng(seed)
    return [generator.permutation(num_seeds)[:k].tolist() for _ in range(_MAX_SUBSETS)]


def _check_k(table: FloatArray, k: int) -> int:
    if table.ndim != 2:
        raise VlmkitError(f"values: {table.ndim} axes; they have two, [samples, seeds]")
    num_seeds = int(table.shape[1])
    if not 1 <= k <= num_seeds:
        raise VlmkitError(f"k: {k} of {num_seeds} seeds; it is from 1 to {num_seeds}")
    return num_seeds

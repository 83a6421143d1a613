"""The counter-based uniforms: range, distribution, independence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vlmkit.errors import VlmkitError
from vlmkit.numeric.counter_rng import uniform, uniforms

N = 100_000


def assert_uniform(numbers: np.ndarray) -> None:
    """Kolmogorov–Smirnov and χ² with 100 bins, both at p ≈ 1e-4."""
    ordered = np.sort(numbers)
    steps = np.arange(1, len(ordered) + 1) / len(ordered)
    distance = np.maximum(np.abs(steps - ordered), np.abs(steps - 1 / len(ordered) - ordered)).max()
    assert distance * np.sqrt(len(ordered)) < 2.23
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    expected = len(numbers) / 100
    assert ((counts - expected) ** 2 / expected).sum() < 158.0  # χ²(99) at 1 - 1e-4


def test_positions_are_uniform_and_independent():
    numbers = np.array([uniform(3, 0, position) for position in range(N)])
    assert_uniform(numbers)
    for lag in (1, 2, 16):
        assert abs(np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]) < 4 / np.sqrt(N)


def test_streams_are_uniform_and_independent():
    table = np.array([uniforms(11, 5, position, 20) for position in range(N // 20)])
    assert_uniform(table.ravel())
    correlations = np.corrcoef(table.T) - np.eye(20)
    assert np.abs(correlations).max() < 5 / np.sqrt(len(table))


@pytest.mark.parametrize("which", ["seed", "sample"])
def test_seeds_and_samples_are_uniform(which):
    numbers = [uniform(**{"seed": 0, "sample": 0, "position": 7, which: i}) for i in range(N // 5)]
    assert_uniform(np.array(numbers))


def test_never_one_and_exact_in_float32():
    numbers = np.array([uniforms(1, 2, position, 16) for position in range(N // 16)])
    assert (numbers >= 0).all()
    np.testing.assert_array_equal(numbers.astype(np.float32).astype(np.float64), numbers)
    largest = np.float32((2**24 - 1) * 2.0**-24)  # of all numbers there can be
    assert largest < 1


def test_streams_are_a_prefix():
    assert uniforms(9, 1, 4, 40)[:17] == uniforms(9, 1, 4, 17)
    assert [uniform(9, 1, 4, stream) for stream in range(40)] == uniforms(9, 1, 4, 40)
    assert uniforms(9, 1, 4, 0) == []


def test_a_number_never_changes():
    """Recorded runs depend on these values."""
    assert [int(u * 2**24) for u in uniforms(0, 0, 0, 3)] == GOLDEN
    assert int(uniform(2**64 - 1, 2**64 - 1, 2**64 - 1) * 2**24) == GOLDEN_LAST


GOLDEN = [11740683, 1289839, 13676846]
GOLDEN_LAST = 4535465


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, "7"])
@pytest.mark.parametrize("name", ["seed", "sample", "position"])
def test_counters_out_of_range(name, bad):
    with pytest.raises(VlmkitError, match=f"{name} .*2\\*\\*64"):
        uniform(**{"seed": 0, "sample": 0, "position": 0, name: bad})


def test_mlx_is_not_imported():
    code = (
        "import sys, vlmkit.numeric.counter_rng\n"
        "sys.exit('mlx' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What this machine reaches: products per second, and bytes of memory per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

SIDE = 1024
"""Rows, columns and terms of the product: 2.1 GFLOP."""

MATRIX_BYTES = 2**28
"""What a one-row product reads: 256 MiB, more than caches hold."""

_BUDGET_S = 0.5
_MIN_REPEATS, _MAX_REPEATS = 3, 50


class Speeds(NamedTuple):
    """Measured once, the best of a few repetitions within half a second each."""

    gflops: float  # 10**9 operations per second of a square product
    bandwidth_gb_s: float  # 10**9 bytes per second that a product of one row reads


def measure_speeds(dtype: mx.Dtype, *, free: int | None = None) -> Speeds:
    """Measure the device that MLX computes on, about a second.

    Args:
        dtype: of the products.
        free: bytes of memory; the matrix takes an eighth at most.

    Example:
        >>> speeds = measure_speeds(mx.float32, free=2**26)
        >>> speeds.gflops > 0 and speeds.bandwidth_gb_s > 0
        True
    """
    x = mx.random.normal((SIDE, SIDE)).astype(dtype)
    product_s = _best_s(lambda: x @ x)
    num_bytes = MATRIX_BYTES if free is None else min(MATRIX_BYTES, max(free // 8, 2**20))
    rows = num_bytes // (SIDE * dtype.size)
    matrix, row = mx.full((rows, SIDE), 0.5, dtype), mx.ones((1, SIDE), dtype)
    mx.eval(matrix, row)
    row_s = _best_s(lambda: row @ matrix.T)
    return Speeds(2e-9 * SIDE**3 / product_s, 1e-9 * matrix.nbytes / row_s)


def _best_s(compute: Callable[[], mx.array]) -> float:
    best, began = float("inf"), time.perf_counter()
    for turn in range(_MAX_REPEATS):
        start = time.perf_counter()
        mx.eval(compute())
        end = time.perf_counter()
        best = min(best, end - start)
        if turn >= _MIN_REPEATS and end - began > _BUDGET_S:
            break
    return max(best, 1e-9)

"""How fast this machine multiplies, and how fast it could: measured, in a second or less."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from vlmkit.backend.blas_environment import num_threads

READ_BYTES = 2**28
"""Read at a time: more than caches hold."""


class ProductSpeed(NamedTuple):
    """Of MLX's float32 products on the CPU, beside what limits them."""

    gflops: float
    """10^9 operations per second of 256 rows by a 1024 x 4096 weight."""
    one_row_gb_per_s: float
    """10^9 bytes of a large weight read per second by products with one row."""
    read_gb_per_s: float
    """10^9 bytes that the machine reads per second: the limit of products with one row."""


def measure_products() -> ProductSpeed:
    """Measure MLX's products on the CPU, with the BLAS that is there now.

    Example:
        >>> measure_products().gflops > 0.1
        True
    """
    with mx.stream(mx.cpu):
        x, weight = mx.ones((256, 1024)), mx.ones((4096, 1024))
        long = mx.ones((2**15, 1024))
        mx.eval(x, weight, long)
        many_s = best_s(lambda: mx.eval(x @ weight.T), rounds=5)
        one_s = best_s(lambda: mx.eval(x[:1] @ long.T), rounds=9)
    return ProductSpeed(
        gflops=2 * 256 * weight.size / many_s / 1e9,
        one_row_gb_per_s=long.nbytes / one_s / 1e9,
        read_gb_per_s=measure_reading(),
    )


def measure_reading(threads: int | None = None) -> float:
    """Measure how fast threads together read memory, in 10^9 bytes per second.

    Args:
        threads: how many; None: as many as multiply.
    """
    threads = num_threads() if threads is None else threads
    parts = np.array_split(np.ones(READ_BYTES // 4, np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:
        return READ_BYTES / best_s(lambda: list(pool.map(np.max, parts)), rounds=7) / 1e9


def best_s(function: Callable[[], object], rounds: int) -> float:
    """The shortest of some runs, in seconds: the one that other processes disturbed least."""
    return min(_times(function, rounds))


def _times(function: Callable[[], object], rounds: int) -> list[float]:
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return times

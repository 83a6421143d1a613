"""Is a BLAS right? Its products against exact integer arithmetic, before and after it is put in."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

ROW_MAJOR, AS_IT_STANDS, TRANSPOSED = 101, 111, 112
# Entries are multiples of 2^-16 below 16: exact in float32, and too fine for a library that
# multiplies in bfloat16 or TF32.
SCALE, LIMIT, MEAN = 2.0**-16, 2**20, 8.0
UNIT = 2.0**-24

GEMM = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_float, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int),
    *(ctypes.c_float, ctypes.c_void_p, ctypes.c_int),
)
"""``cblas_sgemm``: order, whether A and B are transposed, M, N, K, alpha, A, lda, B, ldb, beta, C,
ldc."""


class _Case(NamedTuple):
    rows: int
    columns: int
    terms: int
    transpose_a: bool = False
    transpose_b: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    padding: int = 0
    """How much longer a row of each matrix is than what it holds."""


# As MLX calls it: one row and many, one column, weights as they stand (N x K, transposed), sizes
# on both sides of the libraries' block sizes and of where they start threads, and views.
CASES = (
    *(
        _Case(1, n, 77, transpose_b=b, padding=p)
        for n in (1, 130)
        for b in (False, True)
        for p in (0, 3)
    ),
    _Case(1, 64, 130, transpose_a=True, transpose_b=True, padding=2),
    _Case(1, 700, 150, transpose_b=True),
    _Case(1, 33, 40, transpose_b=True, alpha=0.5, beta=1.0),
    _Case(1, 33, 40, alpha=-2.0, beta=0.5, padding=1),
    _Case(130, 1, 77, padding=3),
    *(
        _Case(19, 37, 65, a, b, alpha, beta, 5)
        for a in (False, True)
        for b in (False, True)
        for alpha, beta in ((1.0, 0.0), (0.5, 1.0))
    ),
    _Case(66, 140, 112, transpose_b=True),
    _Case(70, 66, 64, transpose_a=True, alpha=0.125, padding=1),
)

MLX_SHAPES = ((24, 48), (40, 48), (1, 48), (3, 9, 48), (3, 48, 11), (40,))
MLX_PRODUCTS: dict[str, Callable[..., Any]] = {
    "a product with a weight": lambda x, weight, row, many, other, bias: x @ weight.T,
    "one row": lambda x, weight, row, many, other, bias: row @ weight.T,
    "one column": lambda x, weight, row, many, other, bias: x @ row.T,
    "a batch": lambda x, weight, row, many, other, bias: many @ other,
    "a batch of rows": lambda x, weight, row, many, other, bias: many[:, :1] @ other,
    "transposed batches": lambda x, weight, row, many, other, bias: many @ many.swapaxes(1, 2),
    "parts of wider rows": lambda x, weight, row, many, other, bias: x[:, 8:40] @ weight[:, :32].T,
    "a transposed left side": lambda x, weight, row, many, other, bias: x.T @ x,
}


def wrong_product(address: int) -> str | None:
    """Try a ``cblas_sgemm`` on the products that MLX asks for.

    Args:
        address: of the function.

    Returns:
        The first product that is off by more than rounding, in words; None if all are right.
    """
    product = GEMM(address)
    for case in CASES:
        a, held_a = _matrix(case.rows, case.terms, case.transpose_a, case.padding)
        b, held_b = _matrix(case.terms, case.columns, case.transpose_b, case.padding)
        c, held_c = _matrix(case.rows, case.columns, False, case.padding)
        before = held_c.copy()
        if case.beta == 0:
            held_c[:, : case.columns] = np.nan  # must not be read
        product(
            *(ROW_MAJOR, TRANSPOSED if case.transpose_a else AS_IT_STANDS),
            *(TRANSPOSED if case.transpose_b else AS_IT_STANDS, case.rows, case.columns),
            *(case.terms, case.alpha, held_a.ctypes.data, held_a.shape[1]),
            *(held_b.ctypes.data, held_b.shape[1], case.beta),
            *(held_c.ctypes.data, held_c.shape[1]),
        )
        wanted = case.alpha * (a @ b) * SCALE**2 + case.beta * c * SCALE
        size = case.terms * abs(case.alpha) * MEAN**2 + abs(case.beta) * MEAN
        error = np.abs(held_c[:, : case.columns] - wanted)
        if not np.all(error <= (case.terms + 2) * UNIT * size):  # NaN is wrong, too
            return f"{case.rows} x {case.terms} by {case.terms} x {case.columns} ({case})"
        if not np.array_equal(held_c[:, case.columns :], before[:, case.columns :]):
            return f"{case}: it writes beside its result"
    return None


def wrong_mlx_product() -> str | None:
    """Try MLX's own products on the CPU. Returns the first wrong one in words, or None."""
    # Small integers, which every order of summing gives exactly.
    matrices = [scattered_integers(8, shape) for shape in MLX_SHAPES]
    for kind in (mx.float32, mx.float64, mx.complex64):
        with mx.stream(mx.cpu):
            ours = [mx.array(matrix, kind) for matrix in matrices]
            results = {name: product(*ours) for name, product in MLX_PRODUCTS.items()}
            mx.eval(results)
        for name, product in MLX_PRODUCTS.items():
            if not np.array_equal(np.array(results[name]), product(*matrices)):
                return f"{name} in {kind}"
    x, weight, bias = (mx.array(matrices[i], mx.float32) for i in (0, 1, 5))
    with mx.stream(mx.cpu):
        sums = mx.addmm(bias, x, weight.T)
        mx.eval(sums)
    exact = matrices[0] @ matrices[1].T + matrices[5]
    return None if np.array_equal(np.array(sums), exact) else "a product with a bias"


def scattered_integers(limit: int, shape: tuple[int, ...]) -> np.ndarray:
    """Integers from -limit to limit - 1 in no order. (Importing numpy.random would take 30 ms.)"""
    count = math.prod(shape)
    scattered = np.arange(1, count + 1) * 2_654_435_761 % 2**32  # Knuth's multiplicative hash
    return (scattered * (2 * limit) // 2**32 - limit).reshape(shape)


def _matrix(
    rows: int, columns: int, transposed: bool, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """Integers of one matrix, and the float32 buffer that holds it, perhaps transposed."""
    exact = scattered_integers(LIMIT, (rows, columns))
    stored = exact.T if transposed else exact
    held = np.full((stored.shape[0], stored.shape[1] + padding), 7.0, np.float32)
    held[:, : stored.shape[1]] = stored * SCALE
    return exact, held

"""The check of products finds faults; the redirection of one row keeps them right."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmkit.backend import blas_one_row
from vlmkit.backend.blas_check import GEMM, wrong_product
from vlmkit.backend.blas_one_row import CODE, redirect_one_row

GEMV = ctypes.CFUNCTYPE(
    None,
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_float, ctypes.c_void_p),
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_void_p, ctypes.c_int),
)
x86_64 = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="x86-64 instructions"
)
Array = np.ndarray[Any, np.dtype[np.float32]]


def at(address: int, rows: int, columns: int, stride: int) -> Array:
    """The float32 matrix that stands at an address, rows ``stride`` apart."""
    flat = (ctypes.c_float * ((rows - 1) * stride + columns)).from_address(address)
    floats = np.frombuffer(flat, np.float32)
    return np.lib.stride_tricks.as_strided(floats, (rows, columns), (4 * stride, 4))


def gemm(
    product: Callable[[Array, Array], Array] = lambda a, b: a @ b,
    *,
    uses_beta: bool = True,
    transposes: bool = True,
    reads_result: bool = False,
) -> Any:
    """A ``cblas_sgemm`` in Python, right as it is."""

    def run(
        order: int, ta: int, tb: int, m: int, n: int, k: int, alpha: float,
        a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
    ) -> None:  # fmt: skip
        left = at(a, m, k, lda) if ta == 111 or not transposes else at(a, k, m, lda).T
        right = at(b, k, n, ldb) if tb == 111 or not transposes else at(b, n, k, ldb).T
        result = at(c, m, n, ldc)
        old = beta * result if reads_result or (beta and uses_beta) else np.float32(0)
        result[:] = alpha * product(left, right) + old

    return GEMM(run)


def address(function: Any) -> int:
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found


def test_a_right_one_passes() -> None:
    right = gemm()
    assert wrong_product(address(right)) is None


def bfloat16(a: Array) -> Array:
    return (np.ascontiguousarray(a).view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        gemm(lambda a, b: bfloat16(a) @ bfloat16(b)),
        gemm(lambda a, b: a @ b + (a.shape[0] == 1)),
        gemm(lambda a, b: a @ b if a.shape[0] < 70 else a[::-1] @ b),
        gemm(lambda a, b: a[:, :-1] @ b[:-1]),
        gemm(uses_beta=False),
        gemm(reads_result=True),
    ],
    ids=["bfloat16", "one row", "large", "last term", "beta", "reads what it overwrites"],
)
def test_a_wrong_one_is_found(wrong: Any) -> None:
    assert wrong_product(address(wrong)) is not None


@x86_64
def test_one_row_goes_to_the_matrix_vector_product() -> None:
    calls = []

    def vector(
        order: int, trans: int, rows: int, columns: int, alpha: float, a: int, lda: int,
        x: int, x_stride: int, beta: float, y: int, y_stride: int,
    ) -> None:  # fmt: skip
        matrix = at(a, rows, columns, lda)
        matrix = matrix if trans == 111 else matrix.T
        count, terms = matrix.shape
        old = beta * at(y, count, 1, y_stride) if beta else np.float32(0)
        at(y, count, 1, y_stride)[:] = alpha * (matrix @ at(x, terms, 1, x_stride)) + old
        calls.append(count)

    by_row, by_matrix = GEMV(vector), gemm(lambda a, b: a @ b if a.shape[0] > 1 else 0 * (a @ b))
    redirected = redirect_one_row(address(by_matrix), address(by_row))
    assert redirected is not None
    assert wrong_product(redirected) is None
    assert wrong_product(address(by_matrix)) is not None
    assert calls


@x86_64
def test_a_sum_of_nothing_stays_with_the_product() -> None:
    """OpenBLAS's matrix-vector product returns at once where there is nothing to sum."""
    calls = []
    matrix = GEMM(lambda *arguments: calls.append(arguments[3:6]))
    vector = GEMV(lambda *arguments: calls.append("vector"))
    redirected = redirect_one_row(address(matrix), address(vector))
    assert redirected is not None
    call = GEMM(redirected)
    call(101, 111, 111, 1, 5, 0, 1, 0, 1, 0, 1, 0, 0, 1)
    call(102, 111, 111, 1, 5, 3, 1, 0, 1, 0, 1, 0, 0, 1)  # column-major
    call(101, 111, 111, 1, 5, 3, 1, 0, 1, 0, 1, 0, 0, 1)
    assert calls == [(1, 5, 0), (1, 5, 3), "vector"]


@x86_64
@pytest.mark.skipif(shutil.which("objdump") is None, reason="reads the code with objdump")
def test_the_code_is_what_its_comments_say(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(CODE)
    done = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "code"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listing = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 2]
    source = Path(blas_one_row.__file__).read_text()
    comments = [line.split("#", 1)[1] for line in source.splitlines() if '"  # ' in line]
    assert len(listing) == len(comments)
    for (_, _, instruction), comment in zip(listing, comments, strict=True):
        assert instruction.split()[0] in comment.split(), (instruction, comment)


def test_a_system_that_allows_no_new_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: int) -> None:
        raise OSError("mprotect failed")

    monkeypatch.setattr(blas_one_row, "protect", refuse)
    assert redirect_one_row(1, 1) is None


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert redirect_one_row(1, 1) is None

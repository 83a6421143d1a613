"""Stand-in until the packaged BLAS is here."""

from __future__ import annotations

from typing import NamedTuple


class BlasReport(NamedTuple):
    """Which library multiplies matrices on the CPU."""

    name: str
    path: str | None
    source: str
    verified: bool
    gflops: float | None
    note: str


_REPORT = BlasReport("mlx", None, "mlx", True, None, "as installed with MLX")


def install_blas(choice: str = "auto") -> BlasReport:
    """Choose the library."""
    return _REPORT


def blas_report() -> BlasReport:
    """Return what was chosen."""
    return _REPORT

"""The library that multiplies matrices for MLX on a CPU.

On Linux MLX comes linked with the reference BLAS, which reaches a thirtieth of what the machine
can do. Its calls are sent to a faster library by writing that library's functions into the slots
through which MLX's own library calls them; a wrong product puts everything back. On a Mac MLX uses
Accelerate, and there is nothing to do.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from vlmkit.backend.blas_check import wrong_mlx_product, wrong_product
from vlmkit.backend.blas_environment import blas_environment
from vlmkit.backend.blas_library import (
    VECTOR,
    Library,
    UnusableLibraryError,
    candidates,
    is_fast_already,
    load_library,
)
from vlmkit.backend.blas_one_row import redirect_one_row
from vlmkit.backend.blas_slots import PRODUCTS, Slots, find_slots, point_slots
from vlmkit.errors import VlmkitError, VlmkitWarning

VARIABLE = "VLMKIT_BLAS"


class BlasReport(NamedTuple):
    """What multiplies matrices on the CPU of this process."""

    name: str
    """The library, with its version and kernels where it tells them."""
    path: str | None
    """Its file, or the name it was found by; None for the one that MLX is linked with."""
    source: Literal["mlx", "packaged", "found", "accelerate"]
    verified: bool
    """Its products were compared with exact ones."""
    note: str = ""
    """Why it is this one, where that is not plain, and what would be faster."""


_lock = threading.RLock()
_installed: dict[str, BlasReport] = {}  # at most one: by the choice that it answers


def install_blas(choice: str = "auto") -> BlasReport:
    """Send MLX's products on the CPU to a fast library. Once per process; again costs nothing.

    ``float32``, ``float64`` and ``complex64`` products; decompositions keep MLX's own LAPACK. The
    library is verified against exact products first, and left out with one warning where it is
    wrong. Measured on two cores with AVX-512, 278 rows: 3.5 GFLOP/s with MLX's own, 190 to 240 with
    OpenBLAS.

    Args:
        choice: ``auto`` takes the first that works of the package ``scipy-openblas32``, SciPy's own
            copy, and the system's OpenBLAS, MKL or BLIS; ``mlx`` leaves MLX as it is; else a
            library with a C interface and 32-bit integers, by its path. The environment variable
            ``VLMKIT_BLAS`` chooses in place of ``auto``. Another choice
            than before changes the library.

    Returns:
        What multiplies from now on.

    Raises:
        VlmkitError: the choice is neither of those words nor a file.

    Warns:
        VlmkitWarning: the library asked for can't be used, or one computes wrong products.

    Example:
        >>> install_blas() == blas_report()
        True
    """
    variable = os.environ.get(VARIABLE)
    variable = variable if choice == "auto" else None
    choice = variable or choice
    if choice not in ("auto", "mlx") and not Path(choice).is_file():
        place = f"{VARIABLE}: " if variable else "blas: "
        raise VlmkitError(f"{place}{choice!r} is no file; use auto, mlx or the path of a library")
    with _lock:
        if choice not in _installed:
            report = _install(choice)
            _installed.clear()
            _installed[choice] = report
        return _installed[choice]


def blas_report() -> BlasReport | None:
    """What :func:`install_blas` found; None if it has not been called."""
    with _lock:
        return next(iter(_installed.values()), None)


def _install(choice: str) -> BlasReport:
    if sys.platform == "darwin":
        return BlasReport("Accelerate", None, "accelerate", False)
    slots = find_slots()
    if slots is None:
        return _own("MLX's library calls no BLAS that could be replaced here")
    try:
        point_slots(slots, slots.original)
    except OSError as error:
        return _own(f"MLX's library can't be changed: {error}")
    if choice == "mlx":
        return _own("as asked for")
    if choice == "auto":
        fast = is_fast_already(slots.path)
        if fast is not None:
            return BlasReport(fast, None, "mlx", False, "MLX is linked with it")
        return _first_that_works(slots, candidates())
    return _first_that_works(slots, [("found", os.path.abspath(choice))])


def _first_that_works(
    slots: Slots, libraries: Iterable[tuple[Literal["packaged", "found"], str]]
) -> BlasReport:
    """Put in the first library that computes right, else leave MLX's own."""
    failure = ""
    report = None
    for source, path in libraries:
        try:
            with blas_environment():
                name, note = _put_in(slots, path)
            report = BlasReport(name, path, source, True, note)
            break
        except UnusableLibraryError as error:
            if Path(path).is_file():  # else the system has none of that name
                failure = failure or f"{path} can't multiply for MLX: {error}"
    report = report or _own(
        failure or "slow; pip install scipy-openblas32 makes it 30 times faster"
    )
    if failure:
        warnings.warn(f"{failure}; {report.name} is used", VlmkitWarning, stacklevel=4)
    return report


def _put_in(slots: Slots, path: str) -> tuple[str, str]:
    """Load, verify and wire a library, or leave all as it was. Returns its name, and a note."""
    library = load_library(path)
    functions, note = _verified(library)
    wrong: str | None = "what could not be checked"
    try:
        point_slots(slots, functions)
        wrong = wrong_mlx_product()
    finally:
        if wrong is not None:
            point_slots(slots, slots.original)
    if wrong is not None:
        raise UnusableLibraryError(f"it computes {wrong} wrong")
    return library.name, note


def _verified(library: Library) -> tuple[dict[str, int], str]:
    """The functions to wire, with products of one row redirected where that computes right."""
    functions = {name: library.functions[name] for name in PRODUCTS}
    if VECTOR in library.functions:
        one_row = redirect_one_row(functions[PRODUCTS[0]], library.functions[VECTOR])
        if one_row is not None and wrong_product(one_row) is None:
            return functions | {PRODUCTS[0]: one_row}, "one row by its matrix-vector product"
    wrong = wrong_product(functions[PRODUCTS[0]])
    if wrong is not None:
        raise UnusableLibraryError(f"it computes a wrong product, {wrong}")
    return functions, "one row by its matrix product"


def _own(note: str) -> BlasReport:
    return BlasReport("the BLAS that MLX came with", None, "mlx", False, note)

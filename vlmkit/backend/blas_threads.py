"""How many threads a BLAS multiplies with."""

from __future__ import annotations

import ctypes

SETTERS = (
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads",
    "MKL_Set_Num_Threads",
    "bli_thread_set_num_threads",
)
"""What each library calls the function, all with one integer."""


def set_blas_threads(path: str, threads: int) -> bool:
    """Let a library that is loaded use so many threads from now on; False where it cannot be told.

    Args:
        path: the library's file, or the name it was found by.
        threads: 1 or more.
    """
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return False
    setter = next((getattr(library, name) for name in SETTERS if hasattr(library, name)), None)
    if setter is None:
        return False
    setter.argtypes, setter.restype = [ctypes.c_long], None
    setter(threads)
    return True

"""Run as a process of its own: does a library's ``cblas_sgemm`` take 32-bit integers?

    python blas_probe.py LIBRARY FUNCTION

Fails, or crashes, where it does not. Integers are passed with rubbish in their upper halves, which
a function of 32-bit ones never sees and one of 64-bit ones takes for a size. Needs the standard
library alone.
"""

from __future__ import annotations

import ctypes
import sys

ROW_MAJOR, AS_IT_STANDS = 101, 111
RUBBISH = -0x5EADBEEF << 32


def probe(path: str, name: str) -> str | None:
    """Multiply [[1, 2], [3, 4]] by [[5, 6], [7, 8]]. Returns what is wrong, or None."""
    function = ctypes.CDLL(path)[name]
    enum, size, real = ctypes.c_int, ctypes.c_int64, ctypes.c_float
    pointer = ctypes.POINTER(real)
    function.restype = None
    function.argtypes = [
        *(enum, enum, enum, size, size, size),
        *(real, pointer, size, pointer, size, real, pointer, size),
    ]
    matrix = real * 4
    a, b, c = matrix(1, 2, 3, 4), matrix(5, 6, 7, 8), matrix()
    two = RUBBISH | 2
    shape = (two, two, two)
    function(ROW_MAJOR, AS_IT_STANDS, AS_IT_STANDS, *shape, 1.0, a, two, b, two, 0.0, c, two)
    return None if list(c) == [19, 22, 43, 50] else f"a product comes out as {list(c)}"


if __name__ == "__main__":
    sys.exit(probe(sys.argv[1], sys.argv[2]))

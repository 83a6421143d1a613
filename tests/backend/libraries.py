"""Small libraries of products, compiled for a test: right ones, wrong ones, odd ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = """
#include <stdint.h>
typedef {integer} integer;
static long count;
long products(void) {{ return count; }}
#define PRODUCT(name, real, scalar, value)                                                  \\
  void name(int order, int ta, int tb, integer m, integer n, integer k, scalar alpha,       \\
            const real *a, integer lda, const real *b, integer ldb, scalar beta, real *c,   \\
            integer ldc) {{                                                                 \\
    count++;                                                                                \\
    for (integer i = 0; i < m; i++)                                                         \\
      for (integer j = 0; j < n; j++) {{                                                    \\
        real sum = 0;                                                                       \\
        for (integer t = 0; t < k; t++)                                                     \\
          sum += (ta == 111 ? a[i * lda + t] : a[t * lda + i]) *                            \\
                 (tb == 111 ? b[t * ldb + j] : b[j * ldb + t]);                             \\
        real was = value(beta) == 0 ? 0 : value(beta) * c[i * ldc + j];                     \\
        c[i * ldc + j] = value(alpha) * sum + was;                                          \\
        {fault};                                                                            \\
      }}                                                                                    \\
  }}
#define ITSELF(x) (x)
#define POINTED(x) (*(const float _Complex *)(x))
#define TWICE(x) (2 * POINTED(x))
PRODUCT(cblas_sgemm, float, float, ITSELF)
PRODUCT(cblas_dgemm, double, double, ITSELF)
{complex_products}
"""
COMPLEX = "PRODUCT(cblas_cgemm, float _Complex, const void *, POINTED)"
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="compiles a library")


def compile_library(
    folder: Path, *, integer: str = "int", fault: str = "", complex_products: str = COMPLEX
) -> Path:
    """Compile a library of products.

    Args:
        folder: where to.
        integer: the C type of sizes.
        fault: a C statement run at each entry (i, j) of a result, which spoils it.
        complex_products: the definition of the product of complex numbers.
    """
    source = folder / "products.c"
    source.write_text(
        SOURCE.format(integer=integer, fault=fault, complex_products=complex_products)
    )
    library = folder / "libproducts.so"
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source)],
        check=True,
        capture_output=True,
    )
    return library

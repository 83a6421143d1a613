"""Which library multiplies, each way in a process of its own: it is the same for all of one."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backend.libraries import COMPLEX, compile_library, needs_compiler
from vlmkit.backend.blas import install_blas
from vlmkit.backend.elf import loaded_libraries
from vlmkit.errors import VlmkitError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a Mac has Accelerate")

SCRIPT = """
import json, os, sys, threading, warnings
import mlx.core as mx
from vlmkit.backend import blas
from vlmkit.backend.blas_check import wrong_mlx_product
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    {prepare}
    environment = dict(os.environ)
    threads = [threading.Thread(target=blas.install_blas) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    report = blas.install_blas()
assert report is blas.blas_report() and environment == dict(os.environ)
result = report._asdict() | {{"wrong": wrong_mlx_product()}}
result["warnings"] = [str(warning.message) for warning in caught]
print(json.dumps(result))
"""


def run(prepare: str = "pass", **environment: str) -> dict[str, Any]:
    """Install in a new process, by four threads at once, and return its report and more."""
    inherited = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(prepare=prepare)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["wrong"] is None
    return result


def beside(package: str, pattern: str) -> str:
    """A library in a folder beside an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    found = sorted(Path(spec.origin).parents[1].glob(pattern))
    if not found:
        pytest.skip(f"{package} comes without a library of its own here")
    return str(found[0])


def test_packaged() -> None:
    path = beside("scipy_openblas32", "scipy_openblas32/lib/libscipy_openblas.so")
    report = run()
    assert (report["source"], report["path"], report["verified"]) == ("packaged", path, True)
    assert report["name"].startswith("OpenBLAS 0.3.")
    assert not report["warnings"]


def test_found() -> None:
    path = beside("scipy", "scipy.libs/libscipy_openblas-*")
    report = run(f"blas.candidates = lambda: [('found', 'libnone.so.0'), ('found', {path!r})]")
    assert (report["source"], report["path"], report["verified"]) == ("found", path, True)
    assert not report["warnings"]
    assert report == run(VLMKIT_BLAS=path)


def test_absent() -> None:
    report = run("blas.candidates = lambda: iter([('found', 'libnothing_of_the_kind.so.0')])")
    assert (report["source"], report["path"], report["verified"]) == ("mlx", None, False)
    assert "pip install scipy-openblas32" in report["note"]
    assert not report["warnings"]


def test_mlx_as_it_is() -> None:
    report = run(VLMKIT_BLAS="mlx")
    assert (report["source"], report["verified"], report["warnings"]) == ("mlx", False, [])


@needs_compiler
def test_products_really_go_there_and_back(tmp_path: Path) -> None:
    path = str(compile_library(tmp_path))
    script = (
        "from vlmkit.backend.blas import install_blas\n"
        "import ctypes, mlx.core as mx\n"
        f"library = ctypes.CDLL({path!r})\n"
        "def products():\n"
        "    mx.eval(mx.ones((5, 6)) @ mx.ones((6, 7)))\n"
        "    return library.products()\n"
        f"assert install_blas({path!r}).source == 'found'\n"
        "first = products()\n"
        "assert products() == first + 1\n"
        "assert install_blas('mlx').source == 'mlx'\n"
        "assert products() == first + 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


FAULTS = {
    "off by one at the end of long rows": "if (n > 8 && j == n - 1) c[i * ldc + j] += 1",
    "bfloat16 inside": "union { float f; uint32_t u; } x = { (float)c[i * ldc + j] };"
    " x.u &= 0xffff0000; c[i * ldc + j] = x.f",
    "wrong in large products only": "if (m * n > 4000) c[i * ldc + j] = 0",
    "writes beside": "if (j == n - 1 && ldc > n) c[i * ldc + n] = 0",
}


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_wrong_products(tmp_path: Path, fault: str) -> None:
    refused(compile_library(tmp_path, fault=fault), "it computes a wrong product, ")


@needs_compiler
def test_a_product_that_is_wrong_only_through_mlx(tmp_path: Path) -> None:
    twice = COMPLEX.replace("POINTED", "TWICE")
    refused(
        compile_library(tmp_path, complex_products=twice),
        "it computes a product with a weight in mlx.core.complex64 wrong",
    )


@needs_compiler
def test_missing_functions(tmp_path: Path) -> None:
    refused(compile_library(tmp_path, complex_products=""), "it has no cblas_cgemm")


@needs_compiler
@pytest.mark.parametrize(
    "fault", ["", "*(volatile int *)0 = 0"], ids=["64-bit integers", "crashes"]
)
def test_a_crash_stays_in_a_process_of_its_own(tmp_path: Path, fault: str) -> None:
    library = compile_library(tmp_path, integer="int" if fault else "int64_t", fault=fault)
    refused(library, "it fails a product with 32-bit integers in a process of its own (")


def test_numpys_library_takes_64_bit_integers() -> None:
    path = Path(beside("numpy", "numpy.libs/libscipy_openblas64_*"))
    refused(path, "it has no cblas_sgemm (only one with 64-bit integers)")


def test_no_blas_and_no_library(tmp_path: Path) -> None:
    refused(maths_library(), "it has no cblas_sgemm (none)")
    text = tmp_path / "text.so"
    text.write_text("not a library")
    refused(text, "it can't be loaded: ")


def test_the_next_one_where_the_first_fails() -> None:
    path = beside("scipy", "scipy.libs/libscipy_openblas-*")
    first = str(maths_library())
    report = run(f"blas.candidates = lambda: [('packaged', {first!r}), ('found', {path!r})]")
    assert (report["source"], report["path"]) == ("found", path)
    (warning,) = report["warnings"]
    assert warning.startswith(f"{first} can't multiply")
    assert warning.endswith(f"; {report['name']} is used")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OPENBLAS_NUM_THREADS", "1", "1 thread)"),
        ("OMP_NUM_THREADS", "1", "1 thread)"),
        ("OPENBLAS_CORETYPE", "NEHALEM", "(Nehalem, "),
    ],
)
def test_the_users_variables_win(variable: str, value: str, said: str) -> None:
    if variable == "OPENBLAS_CORETYPE" and platform.machine() != "x86_64":
        pytest.skip("the name of an x86 core")
    beside("scipy_openblas32", "scipy_openblas32/lib/libscipy_openblas.so")
    assert said in run(**{variable: value})["name"]


def test_an_unknown_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VlmkitError, match=r"^blas: 'openblass' is no file; use auto, mlx or"):
        install_blas("openblass")
    monkeypatch.setenv("VLMKIT_BLAS", "/nowhere/lib.so")
    with pytest.raises(VlmkitError, match=r"^VLMKIT_BLAS: '/nowhere/lib\.so' is no file"):
        install_blas("auto")


def maths_library() -> Path:
    """A library that multiplies no matrices."""
    return next(p for x in loaded_libraries() if (p := Path(x.path)).name.startswith("libm.so"))


def refused(library: Path, why: str) -> None:
    """Ask for a library that can't be used: MLX's own stays, one warning says why."""
    report = run(VLMKIT_BLAS=str(library))
    assert (report["source"], report["verified"]) == ("mlx", False)
    (warning,) = report["warnings"]
    assert warning.startswith(f"{library} can't multiply for MLX: {why}")
    assert warning.endswith("; the BLAS that MLX came with is used")
    assert report["note"] in warning

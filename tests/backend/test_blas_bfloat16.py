"""Products with bfloat16 weights: right to float32's rounding, and nothing else is disturbed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from vlmkit.backend import blas_bfloat16
from vlmkit.backend.blas_bfloat16 import CASES, FLAGS, NEEDED, SOURCE, pack_bfloat16
from vlmkit.backend.blas_environment import this_cpu_flags
from vlmkit.errors import VlmkitError

can_multiply = pytest.mark.skipif(
    sys.platform != "linux" or not this_cpu_flags() >= NEEDED or shutil.which("cc") is None,
    reason="needs AVX512-BF16 and a C compiler",
)
# Each in a process of its own: what stands before cblas_sgemm stays there.
PRELUDE = """
import os, sys, threading
import mlx.core as mx, mlx.nn as nn, numpy as np
from vlmkit.backend import blas, blas_bfloat16
from vlmkit.backend.blas_check import wrong_mlx_product
from vlmkit.backend.blas_bfloat16 import *
from vlmkit.backend.blas_bfloat16_layers import *

def largest_error(x, weight):
    "Of a packed product, in units of float32's rounding of the sum's terms."
    rounded = np.array(x.astype(mx.bfloat16).astype(mx.float32), np.float64)
    exact = np.array(weight.astype(mx.float32), np.float64)
    got = np.array(multiply_packed(x, pack_bfloat16(weight), weight.shape[0]))
    sizes = abs(rounded) @ abs(exact).T * 2.0**-24
    return float((abs(got - rounded @ exact.T) / sizes).max())
"""


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@can_multiply
@pytest.mark.parametrize("tiles", ["own", "none"])
def test_equals_float32_sums_of_rounded_numbers(tiles: str) -> None:
    """With AMX where it is there, and without."""
    run(
        ("blas_bfloat16.TILES = {'no such'}\n" if tiles == "none" else "")
        + "report = install_bfloat16()\n"
        "assert report.available and report.note == ''\n"
        + ("assert report.name == 'AVX512-BF16'\n" if tiles == "none" else "")
        + "for rows in (1, 2, 6, 7, 16, 17, 33, 64, 530):\n"
        "    for outputs, inputs in ((5, 32), (64, 96), (100, 1056)):\n"
        "        x, weight = (mx.random.normal(s) for s in ((rows, inputs), (outputs, inputs)))\n"
        "        weight = weight.astype(mx.bfloat16)\n"
        "        assert largest_error(x, weight) < 2 + inputs / 16, (rows, outputs, inputs)\n"
        "assert wrong_mlx_product() is None\n"
    )


@can_multiply
def test_values_at_the_edges() -> None:
    """Rounding to nearest even, infinities and NaNs as MLX converts them."""
    run(
        "install_bfloat16()\n"
        "x = mx.array([1 + 2**-8, 1 + 3 * 2**-8, -1e38, 3.4e38, float('inf'), float('nan'), 0.0])\n"
        "eye = mx.pad(mx.eye(7), [(0, 0), (0, 25)])\n"
        "for row in range(6):\n"
        "    one = mx.zeros((1, 32)); one[0, row] = x[row]\n"
        "    got = multiply_packed(one, pack_bfloat16(eye[row : row + 1]), 1)\n"
        "    wanted = x[row].astype(mx.bfloat16).astype(mx.float32)\n"
        "    assert mx.array_equal(got[0, 0], wanted, equal_nan=True), row\n"
    )


@can_multiply
def test_shapes_views_and_compiled_functions() -> None:
    run(
        "install_bfloat16()\n"
        "weight = mx.random.normal((37, 64)).astype(mx.bfloat16)\n"
        "packed = pack_bfloat16(weight)\n"
        "x = mx.random.normal((2, 8, 64))\n"
        "flat = multiply_packed(x.reshape(16, 64), packed, 37)\n"
        "assert mx.array_equal(multiply_packed(x, packed, 37), flat.reshape(2, 8, 37))\n"
        "assert multiply_packed(x[:, :0], packed, 37).shape == (2, 0, 37)\n"
        "wide = mx.concatenate([x, x], axis=-1)\n"
        "flat = flat.reshape(2, 8, 37)\n"
        "assert mx.array_equal(multiply_packed(wide[..., 64:], packed, 37), flat)\n"
        "turned = mx.contiguous(x.swapaxes(1, 2)).swapaxes(1, 2)\n"
        "assert mx.array_equal(multiply_packed(turned, packed, 37), flat)\n"
        "compiled = mx.compile(lambda x: multiply_packed(x, packed, 37))\n"
        "assert mx.array_equal(compiled(x), flat)\n"
        "ids = mx.array([[0, 36], [17, 5]])\n"
        "assert mx.array_equal(packed_rows(packed, ids), weight[ids])\n"
        "assert packed.nbytes < 1.4 * weight.nbytes\n"
    )


@can_multiply
def test_modules() -> None:
    run(
        "install_bfloat16()\n"
        "class Model(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.embed, self.odd = nn.Embedding(40, 64), nn.Linear(33, 2)\n"
        "        self.layers = [nn.Linear(64, 96), nn.Linear(96, 64, bias=False)]\n"
        "model = Model()\n"
        "def forward(model, ids):\n"
        "    x = model.embed(ids)\n"
        "    return model.embed.as_linear(model.layers[1](model.layers[0](x)))\n"
        "model.set_dtype(mx.bfloat16)\n"
        "model.set_dtype(mx.float32)\n"
        "ids = mx.array([[1, 39], [7, 7]])\n"
        "before = forward(model, ids)\n"
        "assert pack_modules(model) == 3 and type(model.odd) is nn.Linear\n"
        "after = forward(model, ids)\n"
        "assert after.dtype == mx.float32\n"
        "spread = float(mx.abs(before).max())\n"
        "assert 0 < float(mx.abs(after - before).max()) < 2**-7 * spread\n"
    )


@can_multiply
def test_another_blas_and_many_threads() -> None:
    """A change of library and products from several threads leave packed products right."""
    run(
        "install_bfloat16()\n"
        "weight = mx.random.normal((200, 64)).astype(mx.bfloat16)\n"
        "for choice in ('mlx', 'auto'):\n"
        "    blas.install_blas(choice)\n"
        "    assert largest_error(mx.random.normal((40, 64)), weight) < 6\n"
        "    assert wrong_mlx_product() is None\n"
        "packed = pack_bfloat16(weight)\n"
        "x = mx.random.normal((40, 64))\n"
        "wanted = multiply_packed(x, packed, 200)\n"
        "mx.eval(wanted, x, packed)\n"
        "values = np.array(x), np.array(packed), np.array(wanted)\n"
        "failures = []\n"
        "def work():\n"
        "    with mx.stream(mx.new_stream(mx.cpu)):\n"
        "        a, b, c = map(mx.array, values)\n"
        "        for _ in range(50):\n"
        "            same = mx.array_equal(multiply_packed(a, b, 200), c)\n"
        "            if not same.item(): failures.append(1)\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "assert not failures\n"
    )


@can_multiply
@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ("i < (size_t)to / 2", "it computes a wrong product, 1 x 32 by 32 x 5"),
        ("_tile_dpbf16ps(3, 5, 7)", "it computes a wrong product, 40 x 1120"),
        ("#include <immintrin.h>", "can't compile it ("),
    ],
)
def test_a_wrong_library_is_left_out(tmp_path: Path, spoiled: str, said: str) -> None:
    source = SOURCE.read_text()
    assert spoiled in source
    other = {"i < (size_t)to / 2": "i + 1 < (size_t)to / 2"}.get(spoiled, "")
    (tmp_path / "spoiled.c").write_text(source.replace(spoiled, other))
    if spoiled.startswith("_tile") and not this_cpu_flags() >= blas_bfloat16.TILES:
        pytest.skip("needs AMX")
    script = (
        f"import pathlib; blas_bfloat16.SOURCE = pathlib.Path({str(tmp_path / 'spoiled.c')!r})\n"
        "blas_bfloat16.FLAGS = ('-O1', *FLAGS[1:])\n"
        "report = install_bfloat16()\n"
        "print(report.available, report.note)\n"
        "assert wrong_mlx_product() is None\n"
    )
    out = run(script, XDG_CACHE_HOME=str(tmp_path))
    assert out.startswith("False ")
    assert said in out


def test_what_is_missing(tmp_path: Path) -> None:
    """No instructions, no compiler, nowhere to keep the library: one line each."""
    script = "print(install_bfloat16().note)\n"
    none = "from vlmkit.backend import blas_bfloat16 as b; b.this_cpu_flags = frozenset\n"
    linux = sys.platform == "linux"
    assert run(none + script) == (
        "the processor has no AVX512-BF16\n" if linux else "not needed here\n"
    )
    if not linux:
        return
    every = "from vlmkit.backend import blas_bfloat16 as b; b.this_cpu_flags = lambda: b.NEEDED\n"
    out = run(every + script, PATH="", CC="", XDG_CACHE_HOME=str(tmp_path))
    assert out == "there is no C compiler; install gcc or clang\n"
    (tmp_path / "file").write_text("")
    out = run(every + script, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert out.startswith("its library can't be kept or loaded: ")


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or this_cpu_flags().isdisjoint({"sse2"}):
        pytest.skip("needs gcc on x86-64")
    command = ["gcc", *FLAGS, "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "x.so")]
    subprocess.run([*command, str(SOURCE)], check=True)


def test_weights_that_cannot_be_packed() -> None:
    with pytest.raises(VlmkitError, match="48 inputs can't be packed; a multiple of 32 can"):
        pack_bfloat16(mx.zeros((4, 48)))
    assert all(inputs % 32 == 0 for _, _, inputs in CASES)

"""Products with bfloat16 weights and float32 sums, where the processor has instructions for them.

MLX's own bfloat16 product on a CPU reaches 6 GFLOP/s. ``blas_bfloat16.c`` computes it with
AVX512-BF16 and AMX; it is compiled at first use, where there is a compiler, and kept in the user's
cache folder. It stands before ``cblas_sgemm``, which MLX calls with matrices of float32. So a pair
of bfloat16 numbers travels as one float32, and a mark in a last row of the weight says so.

Measured on two cores with AMX and 0.5 B parameters' shapes, against OpenBLAS's float32 products:
2 times as fast with one row, 3 to 5 times with 16 and more.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from vlmkit.backend.blas import install_blas
from vlmkit.backend.blas_check import (
    AS_IT_STANDS,
    GEMM,
    ROW_MAJOR,
    TRANSPOSED,
    scattered_integers,
)
from vlmkit.backend.blas_environment import num_threads, this_cpu_flags
from vlmkit.backend.blas_slots import address, find_slots, stand_before
from vlmkit.errors import VlmkitError

SOURCE = Path(__file__).with_name("blas_bfloat16.c")
FLAGS = (
    *("-O3", "-shared", "-fPIC", "-pthread", "-mavx512f", "-mavx512bw", "-mavx512vl"),
    *("-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
)
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16"}
TILES = {"amx_tile", "amx_bf16"}
MARK = (0xFFB10A7D, 0xFF9E3779, 0xFFA5F00D, 0xFF85EBCA)
WIDTH, DEPTH = 16, 32
"""Outputs and inputs of a tile of the weight."""
# Rows, outputs and inputs: few rows and many, one tile and several, full ones and not.
CASES = ((1, 5, 32), (1, 130, 64), (3, 100, 96), (7, 50, 64), (13, 64, 1056), (40, 90, 1120))


class Bfloat16Report(NamedTuple):
    """Whether, and by what, products with bfloat16 weights are computed."""

    available: bool
    name: str = ""
    """The instructions: ``AMX`` or ``AVX512-BF16``."""
    note: str = ""
    """Why not."""


_lock = threading.Lock()
_installed: list[Bfloat16Report] = []


def install_bfloat16() -> Bfloat16Report:
    """Make :func:`multiply_packed` work, once per process. Installs a BLAS first.

    Returns:
        What it found. Where it is not available the note says what is missing.

    Example:
        >>> report = install_bfloat16()
        >>> report.available == (report.note == "")
        True
    """
    with _lock:
        if not _installed:
            try:
                _installed.append(Bfloat16Report(True, _install()))
            except _UnavailableError as error:
                _installed.append(Bfloat16Report(False, note=str(error)))
        return _installed[0]


def can_pack(num_inputs: int) -> bool:
    """Whether a weight with this many inputs can be packed: a multiple of 32."""
    return num_inputs % DEPTH == 0 and num_inputs > 0


def pack_bfloat16(weight: mx.array) -> mx.array:
    """Lay a weight out for :func:`multiply_packed`.

    Args:
        weight: ``[outputs, inputs]``, rounded to bfloat16 where it is not. The inputs are a
            multiple of 32.

    Returns:
        ``[outputs rounded up to 16, + 1; inputs / 2]`` of float32: only to be multiplied by that.

    Raises:
        VlmkitError: the inputs are not a multiple of 32.
    """
    num_outputs, num_inputs = weight.shape
    if not can_pack(num_inputs):
        raise VlmkitError(
            f"a weight with {num_inputs} inputs can't be packed; a multiple of {DEPTH} can"
        )
    padded = -(-num_outputs // WIDTH) * WIDTH
    with mx.stream(mx.cpu):
        pairs = weight.astype(mx.bfloat16).view(mx.uint32)
        pairs = mx.pad(pairs, [(0, padded - num_outputs), (0, 0)])
        tiles = pairs.reshape(padded // WIDTH, WIDTH, num_inputs // DEPTH, DEPTH // 2)
        rows = tiles.transpose(0, 2, 3, 1).reshape(padded, num_inputs // 2)
        head = mx.array([*MARK, num_outputs], mx.uint32)
        last = mx.pad(head, (0, num_inputs // 2 - head.size))
        return mx.concatenate([rows, last[None]]).view(mx.float32)


def multiply_packed(x: mx.array, packed: mx.array, num_outputs: int) -> mx.array:
    """Return ``x @ weight.T`` with x rounded to bfloat16 and sums in float32.

    Args:
        x: ``[..., inputs]`` of float32.
        packed: the weight, by :func:`pack_bfloat16`.
        num_outputs: rows of the weight.

    Returns:
        ``[..., outputs]`` of float32.

    Example:
        >>> if install_bfloat16().available:
        ...     packed = pack_bfloat16(mx.full((3, 32), 0.5))
        ...     assert multiply_packed(mx.ones((2, 32)), packed, 3).tolist() == [[16.0] * 3] * 2
    """
    if not (_installed and _installed[0].available):
        raise RuntimeError("install_bfloat16 comes first")
    num_rows = x.size // x.shape[-1]
    # Twice the rows of half the numbers: room for the result, and no copy.
    halves = x.astype(mx.float32).reshape(2 * num_rows, x.shape[-1] // 2)
    room = mx.matmul(halves, packed.T, stream=mx.cpu)
    return room.reshape(-1)[: num_rows * num_outputs].reshape(*x.shape[:-1], num_outputs)


def packed_rows(packed: mx.array, ids: mx.array) -> mx.array:
    """Return rows of a packed weight, as an embedding looks them up.

    Args:
        packed: the weight, by :func:`pack_bfloat16`.
        ids: int ``[...]`` of rows.

    Returns:
        ``[..., inputs]`` of bfloat16.
    """
    num_pairs = packed.shape[1]
    tiles = packed[:-1].reshape(-1, num_pairs // (DEPTH // 2), DEPTH // 2, WIDTH)
    flat = ids.reshape(-1)
    pairs = tiles[flat // WIDTH]
    chosen = mx.take_along_axis(pairs, (flat % WIDTH)[:, None, None, None], axis=-1)
    rows = mx.contiguous(chosen.reshape(flat.size, num_pairs)).view(mx.bfloat16)
    return rows.reshape(*ids.shape, 2 * num_pairs)


class _UnavailableError(Exception):
    """What is missing, in one line."""


def _install() -> str:
    """Compile, load, verify and put before ``cblas_sgemm``. Returns the instructions' name."""
    if sys.platform != "linux":
        raise _UnavailableError("not needed here")
    flags = this_cpu_flags()
    if not flags >= NEEDED:
        raise _UnavailableError("the processor has no AVX512-BF16")
    install_blas()
    slots = find_slots()
    if slots is None:
        raise _UnavailableError("MLX's library calls no BLAS that could be replaced here")
    library = load_compiled()
    function = address(library, "vlmkit_sgemm")
    library.vlmkit_pass_on.argtypes = [ctypes.c_void_p]
    tiles = library.vlmkit_start(num_threads(), int(flags >= TILES))
    wrong = wrong_packed_product(function)
    if wrong is not None:
        raise _UnavailableError(f"it computes a wrong product, {wrong}")
    stand_before(slots, function, library.vlmkit_pass_on)
    return "AMX" if tiles else "AVX512-BF16"


def load_compiled() -> ctypes.CDLL:
    """Load the library of ``blas_bfloat16.c``, compiled the first time."""
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    try:
        folder = cache_folder()
        library = folder / f"bfloat16-{key}.so"
        if not library.exists():
            _compile(library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise _UnavailableError(f"its library can't be kept or loaded: {error}") from None


def cache_folder() -> Path:
    """The user's own folder for what is compiled, made if need be."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "vlmkit"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _compile(library: Path) -> None:
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise _UnavailableError("there is no C compiler; install gcc or clang")
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = next((x for x in done.stderr.splitlines() if "error" in x), "no reason given")
            raise _UnavailableError(f"{compiler} can't compile it ({said.strip()})")
        os.replace(made, library)  # in one step: others may be compiling, too


def wrong_packed_product(function: int) -> str | None:
    """Try a function on packed products. Returns the first wrong one in words, or None."""
    product = GEMM(function)
    for rows, columns, terms in CASES:
        # Small integers: exact in bfloat16, and their sums in float32.
        x, weight = scattered_integers(8, (rows, terms)), scattered_integers(8, (columns, terms))
        packed = np.array(pack_bfloat16(mx.array(weight, mx.float32)))
        held = x.astype(np.float32)
        room = np.full((2 * rows, packed.shape[0]), 7.0, np.float32)
        product(
            *(ROW_MAJOR, AS_IT_STANDS, TRANSPOSED, 2 * rows, packed.shape[0], terms // 2, 1.0),
            *(held.ctypes.data, terms // 2, packed.ctypes.data, terms // 2, 0.0),
            *(room.ctypes.data, packed.shape[0]),
        )
        got = room.reshape(-1)[: rows * columns].reshape(rows, columns)
        if not np.array_equal(got, x @ weight.T):
            return f"{rows} x {terms} by {terms} x {columns}"
        if not (room.reshape(-1)[rows * columns :] == 7.0).all():
            return f"{rows} x {terms} by {terms} x {columns}: it writes beside its result"
    return None

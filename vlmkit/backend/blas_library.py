"""Libraries that multiply matrices: where they are, and their functions."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from vlmkit.backend import blas_probe
from vlmkit.backend.blas_slots import PRODUCTS, address

Source = Literal["packaged", "found"]
VECTOR = "cblas_sgemv"
PREFIXES = ("scipy_", "")
SYSTEM = ("libopenblas.so.0", "libmkl_rt.so.2", "libblis.so.4")


class UnusableLibraryError(Exception):
    """The library can't stand in for MLX's: the message says why, without its path."""


class Library(NamedTuple):
    """A library that has been loaded, with its functions' addresses."""

    name: str
    path: str
    functions: dict[str, int]


def candidates() -> Iterator[tuple[Source, str]]:
    """The libraries to try, best first: the packaged one, SciPy's own, the system's."""
    yield from (("packaged", path) for path in _beside("scipy_openblas32", "scipy_openblas32/lib"))
    yield from (("found", path) for path in _beside("scipy", "scipy.libs"))
    for name in SYSTEM:
        local = Path(sys.prefix) / "lib" / name
        yield "found", str(local) if local.exists() else name


def load_library(path: str) -> Library:
    """Load a library and look up its functions.

    Args:
        path: a file, or a name that the dynamic loader finds.

    Raises:
        UnusableLibraryError: it can't be loaded, lacks a function, or takes 64-bit integers.
    """
    try:
        handle = ctypes.CDLL(path)
    except OSError as error:
        raise UnusableLibraryError(f"it can't be loaded: {error}") from None
    prefix = next((p for p in PREFIXES if address(handle, p + PRODUCTS[0])), None)
    if prefix is None:
        wide = any(address(handle, f"{p}{PRODUCTS[0]}64_") for p in PREFIXES)
        kind = "only one with 64-bit integers" if wide else "none"
        raise UnusableLibraryError(f"it has no {PRODUCTS[0]} ({kind})")
    functions = {name: address(handle, prefix + name) for name in (*PRODUCTS, VECTOR)}
    if missing := [name for name in PRODUCTS if not functions[name]]:
        raise UnusableLibraryError(f"it has no {', '.join(missing)}")
    config = _text(handle, prefix + "openblas_get_config")
    if config is None:
        _try_elsewhere(path, prefix)
    elif "USE64BITINT" in config:
        raise UnusableLibraryError("it takes 64-bit integers, MLX passes 32-bit ones")
    name = _name(handle, prefix, config) if config else Path(path).name
    return Library(name, path, {name: at for name, at in functions.items() if at})


def is_fast_already(mlx: str) -> str | None:
    """Name the fast library that MLX is linked with, or None.

    Args:
        mlx: the path of MLX's own library, already loaded.
    """
    handle = ctypes.CDLL(mlx)  # looks in what it is linked with, too
    marks = {"openblas_get_config": "OpenBLAS", "MKL_Get_Version": "MKL", "bli_init": "BLIS"}
    return next((name for mark, name in marks.items() if address(handle, mark)), None)


def _beside(package: str, folder: str) -> list[str]:
    """OpenBLAS with 32-bit integers in a folder beside a package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    site = Path(spec.origin).parents[1]
    return sorted(str(path) for path in (site / folder).glob("libscipy_openblas[-.]*"))


def _try_elsewhere(path: str, prefix: str) -> None:
    """Let another process multiply first: the size of its integers is not to be asked."""
    command = [sys.executable, "-I", "-S", blas_probe.__file__, path, prefix + PRODUCTS[0]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnusableLibraryError(f"it can't be tried: {error}") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UnusableLibraryError(
            f"it fails a product with 32-bit integers in a process of its own ({said})"
        )


def _name(handle: ctypes.CDLL, prefix: str, config: str) -> str:
    """The name of an OpenBLAS, with its version, kernels and threads."""
    core = _text(handle, f"{prefix}openblas_get_corename")
    threads = handle[f"{prefix}openblas_get_num_threads"]()
    return f"{' '.join(config.split()[:2])} ({core}, {threads} thread{'s' * (threads != 1)})"


def _text(handle: ctypes.CDLL, name: str) -> str | None:
    if not address(handle, name):
        return None
    function = handle[name]
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()

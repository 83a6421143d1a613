"""What a machine computes with, why, how fast, and what would make it faster."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.backend.blas_bfloat16 import install_bfloat16
from vlmkit.backend.device import devices, find_compiler, free_bytes, processor_name
from vlmkit.backend.measure import Speeds, measure_speeds
from vlmkit.backend.policy import Backend

SLOW_GFLOPS = 20.0
"""Less than this of float32 on a CPU is the reference BLAS, or a machine under load."""


class Diagnosis(NamedTuple):
    """The findings of `vlmkit doctor`."""

    backend: dict[str, Any]  # as results record it
    reasons: dict[str, str]  # why each choice
    machine: dict[str, Any]  # processor, devices, compiler, free memory, versions
    speeds: Speeds
    advice: tuple[str, ...]  # what would make it faster, one line each


def diagnose(backend: Backend) -> Diagnosis:
    """Measure this machine and say what would help.

    Args:
        backend: what is chosen on it.

    Example:
        >>> from vlmkit.backend.policy import choose_backend, choose_dtype
        >>> found = diagnose(choose_dtype(choose_backend(), "bfloat16", weight_bytes=None))
        >>> found.speeds.gflops > 0, found.backend["device"] == found.machine["devices"][0]
        (True, True)
    """
    dtypes = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
    free = free_bytes()
    speeds = measure_speeds(dtypes[backend.array_dtype], free=free)
    machine = {
        "processor": processor_name(),
        "devices": list(devices()),
        "compiler": find_compiler(),
        "free_bytes": free,
        "mlx": version("mlx"),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    reasons = {name: why for name, why in backend.reasons.items() if why}
    return Diagnosis(backend.describe(), reasons, machine, speeds, _advice(backend, speeds))


def _advice(backend: Backend, speeds: Speeds) -> tuple[str, ...]:
    advice = []
    best = devices()[0]
    if backend.device != best:
        advice.append(f"compute on {best}, which is here (VLMKIT_BACKEND={best})")
    elif best == "cpu" and shutil.which("nvidia-smi") is not None:
        advice.append("there is an NVIDIA driver: pip install 'vlmkit[cuda]' computes on its GPU")
    if not backend.is_cpu:
        return tuple(advice)
    blas = backend.blas
    if blas is not None and blas.source == "mlx" and not blas.verified and blas.note:
        advice.append(f"the BLAS: {blas.note}")
    elif speeds.gflops < SLOW_GFLOPS:
        advice.append(
            f"{speeds.gflops:.0f} GFLOP/s is little: other processes may be using the machine"
        )
    if find_compiler() is None:
        advice.append("install g++: compiled activations take a third of the time")
    if backend.attention == "fused":
        advice.append("attention: matmul is about twice as fast on a CPU")
    if backend.activations == "native":
        advice.append("activations: polynomial takes a third of the time on a CPU")
    if backend.weights in ("half", "packed"):
        advice.append("more free memory: with weights held in full a token takes half the time")
    if backend.products == "native" and (found := install_bfloat16()).available:
        advice.append(f"dtype: bfloat16 multiplies by {found.name}: faster, rounded to 8 bits")
    return tuple(advice)

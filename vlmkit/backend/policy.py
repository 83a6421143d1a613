"""What computes and how, decided once per loaded model: a value that travels with it.

Two steps: :func:`choose_backend` before the model is built (the functions that it is built with),
and :func:`with_weights` once the sizes of its matrices are known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx

from vlmkit.backend.blas import BlasReport, install_blas
from vlmkit.backend.blas_bfloat16 import install_bfloat16
from vlmkit.backend.blas_environment import num_threads
from vlmkit.backend.blas_threads import set_blas_threads
from vlmkit.backend.choices import UNCHOSEN, Choices, Device
from vlmkit.backend.codes import describe_codes
from vlmkit.backend.device import current_device, device_facts, find_compiler, use_device
from vlmkit.backend.environment import NO_WISHES, Wishes, read_wishes
from vlmkit.backend.forms import Forms, make_forms
from vlmkit.backend.host_exponentials import has_vector_exp
from vlmkit.backend.weights import Held, WeightBytes, choose_weights
from vlmkit.errors import VlmkitError

COMPILE_BYTES = 2**27
"""Weights from which on a CPU's compiled functions earn back their compilation: 128 MiB."""

_HOMES = {"blas": "cpu", "threads": "cpu", "products": "cpu", "wired": "metal"}
_WORKING_SET = "max_recommended_working_set_size"


@dataclass(frozen=True)
class Backend:
    """What computes a model, and how."""

    device: Device
    attention: str  # "matmul" | "fused"
    activations: str  # "polynomial" | "native"
    compiled: bool
    forms: Forms = field(repr=False)
    dtype: str | None = None  # of the computation; None: no weights yet
    weights: str | None = None  # "full" | "half" | "packed"
    products: str = "native"  # or the instructions of bfloat16 ones: "AMX", "AVX512-BF16"
    blas: BlasReport | None = None  # None on a GPU
    threads: int | None = None  # of the BLAS; None: its own affair
    wired_bytes: int | None = None  # None where nothing is wired
    reasons: Mapping[str, str] = field(default_factory=dict)  # why each choice
    wishes: Wishes = NO_WISHES

    @property
    def is_cpu(self) -> bool:
        """Whether matrices are laid out, and packed ones multiplied, as a CPU likes it."""
        return self.device == "cpu"

    @property
    def array_dtype(self) -> str:
        """The dtype of activations: bfloat16 products take and give float32."""
        assert self.dtype is not None
        return self.dtype if self.products == "native" else "float32"

    def describe(self) -> dict[str, Any]:
        """Return what was chosen, as results record it."""
        facts: dict[str, Any] = {
            "device": self.device,
            "dtype": self.dtype,
            "weights": self.weights,
            "attention": self.attention,
            "quantized_attention": describe_codes(self.device),
            "activations": self.activations,
            "compile": self.compiled,
            "products": self.products,
        }
        if self.blas is not None:
            facts["blas"] = {"name": self.blas.name, "source": self.blas.source}
            facts["threads"] = self.threads
        if self.wired_bytes is not None:
            facts["wired_bytes"] = self.wired_bytes
        return facts


PLAIN = Backend(
    device="cpu",
    attention="matmul",
    activations="native",
    compiled=False,
    forms=make_forms(
        attention="matmul", activations="native", on_gpu=False, compiled=False, metal=False
    ),
)
"""MLX's own functions, one by one: right on every device, fast on none."""


def choose_backend(
    choices: Choices = UNCHOSEN,
    *,
    dtype: str | None = None,
    weight_bytes: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Backend:
    """Decide all that does not depend on single weights; select the device, install the BLAS.

    What a config says wins over the environment (:data:`vlmkit.backend.environment.VARIABLES`),
    and that over what is fast on this machine.

    Args:
        choices: what the ``backend`` section of a run says.
        dtype: of the computation, where it is asked for.
        weight_bytes: size of the checkpoint; None: large.
        environ: environment variables; None: those of the process.

    Raises:
        VlmkitError: a device that is not there, or a variable that has no such value.

    Example:
        >>> backend = choose_backend(Choices(device="cpu", attention="fused"))
        >>> backend.attention, backend.reasons["attention"]
        ('fused', 'asked for in the config')
    """
    environ = os.environ if environ is None else environ
    wishes = read_wishes(choices, dtype, environ)
    asked = wishes.choices
    if asked.device is not None:
        use_device(asked.device)
    device = current_device()
    cpu = device == "cpu"
    _check_applies(wishes, device)
    compiled, why_compiled = _choose_compile(
        asked.compile, wishes.sources.get("compile"), cpu, weight_bytes
    )
    attention = asked.attention or ("matmul" if cpu else "fused")
    arithmetic = cpu and compiled  # uncompiled, its many small operations cost what they save
    activations = asked.activations or ("polynomial" if arithmetic else "native")
    blas = install_blas(asked.blas or "auto") if cpu else None
    threads = None if blas is None else _set_threads(blas, asked.threads)
    wired = _wire(asked.wired) if device == "metal" else None
    reasons = {
        "device": "MLX's default on this machine",
        "attention": "two products are faster than MLX's kernel on a CPU"
        if cpu
        else "MLX's kernel for GPUs",
        "activations": _why_activations(cpu, arithmetic),
        "compile": why_compiled,
    }
    if blas is not None:
        reasons["blas"] = blas.note or "MLX is linked with it"
        reasons["threads"] = "one per core, within what this process may use"
    if wired is not None:
        reasons["wired"] = "the memory that this GPU may keep resident"
    reasons |= {name: _said(source) for name, source in wishes.sources.items()}
    return Backend(
        device=device,
        attention=attention,
        activations=activations,
        compiled=compiled,
        forms=make_forms(
            attention=attention,
            activations=activations,
            on_gpu=not cpu,
            compiled=compiled,
            metal=device == "metal",
            vector_exp=cpu and has_vector_exp(),
        ),
        blas=blas,
        threads=threads,
        wired_bytes=wired,
        reasons=reasons,
        wishes=wishes,
    )


def choose_dtype(backend: Backend, stored: str | None, *, weight_bytes: int | None) -> Backend:
    """Decide in what a model computes.

    Args:
        backend: from :func:`choose_backend`.
        stored: the dtype of most of the checkpoint's bytes; None: of none that computes.
        weight_bytes: size of the checkpoint; None: large.

    Raises:
        VlmkitError: bfloat16 products are asked for in a config and not to be had.
    """
    backend = _choose_products(backend, weight_bytes)
    if backend.wishes.dtype is not None:
        return replace(backend, dtype=backend.wishes.dtype)
    if backend.is_cpu:
        why, dtype = "nothing else is fast in MLX on a CPU", "float32"
    else:
        why, dtype = "the checkpoint's own", stored or "float32"
    return replace(backend, dtype=dtype, reasons={**backend.reasons, "dtype": why})


def with_weights(
    backend: Backend, sizes: WeightBytes, *, dequantize: bool | None, available: int | None
) -> Backend:
    """Decide how matrices are held.

    Args:
        backend: from :func:`choose_dtype`.
        sizes: of the weights in each form.
        dequantize: True: not packed; False: packed; None: not said.
        available: memory that is free, in bytes; None: not known.

    Raises:
        VlmkitError: there is too little memory, or the checkpoint cannot be held as asked for.
    """
    held: Held = choose_weights(
        sizes,
        on_cpu=backend.is_cpu,
        asked=backend.wishes.choices.weights,
        dequantize=dequantize,
        available=available,
        source=backend.wishes.sources.get("weights"),
    )
    return replace(backend, weights=held.form, reasons={**backend.reasons, "weights": held.reason})


def _choose_products(backend: Backend, weight_bytes: int | None) -> Backend:
    asked, source = backend.wishes.choices.products, backend.wishes.sources.get("products")
    large = weight_bytes is None or weight_bytes >= COMPILE_BYTES
    wanted = backend.is_cpu and backend.wishes.dtype == "bfloat16" and large
    if asked == "native" or (asked is None and not wanted) or not backend.is_cpu:
        return backend
    found = install_bfloat16()
    if found.available:
        why = _said(source) if source else "dtype: bfloat16, and the processor has them"
        reasons = {**backend.reasons, "products": f"{found.name}: {why}"}
        return replace(backend, products=found.name, reasons=reasons)
    if asked is not None and source == "config":
        raise VlmkitError(
            f"backend.products: bfloat16 ones are not to be had here: {found.note}; leave it out",
            path=("backend", "products"),
        )
    return replace(backend, reasons={**backend.reasons, "products": found.note})


def _why_activations(cpu: bool, arithmetic: bool) -> str:
    if not cpu:
        return "one kernel each on a GPU"
    if arithmetic:
        return "compiled arithmetic is faster than the C library's functions"
    return "arithmetic is faster only where it is compiled"


def _check_applies(wishes: Wishes, device: Device) -> None:
    """Refuse what a config asks for and this device has not."""
    for name, home in _HOMES.items():
        if wishes.sources.get(name) == "config" and device != home:
            raise VlmkitError(
                f"backend.{name} is a choice of the device {home}, and {device} computes; leave "
                "it out",
                path=("backend", name),
            )


def _choose_compile(
    asked: bool | None, source: str | None, cpu: bool, weight_bytes: int | None
) -> tuple[bool, str]:
    if not cpu:
        return asked is not False, "MLX compiles for a GPU by itself"
    if find_compiler() is None:
        if asked and source == "config":
            raise VlmkitError(
                "backend.compile: true needs g++, which mx.compile runs on a CPU and which is not "
                "here; install it or leave compile out",
                path=("backend", "compile"),
            )
        return False, "there is no g++, which mx.compile needs on a CPU"
    if asked is not None:
        return asked, ""
    if weight_bytes is not None and weight_bytes < COMPILE_BYTES:
        return False, "the model is too small to earn back the compilation"
    return True, "g++ is there: one pass over memory instead of many"


def _set_threads(blas: BlasReport, threads: int | None) -> int | None:
    if threads is None:
        return num_threads() if blas.source in ("packaged", "found") else None
    if blas.path is None or not set_blas_threads(blas.path, threads):
        raise VlmkitError(
            f"backend.threads: {blas.name} cannot be told how many threads to use; leave it out",
            path=("backend", "threads"),
        )
    return threads


def _wire(share: float | None) -> int | None:
    limit = device_facts().get(_WORKING_SET)
    if not isinstance(limit, int):
        return None
    wired = int((1.0 if share is None else share) * limit)
    mx.set_wired_limit(wired)
    return wired


def _said(source: str) -> str:
    return "asked for in the config" if source == "config" else f"{source} says so"

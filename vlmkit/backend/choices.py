"""What can be chosen of a backend, as plain values: loading a model needs no validation library."""

from __future__ import annotations

from typing import Literal, NamedTuple

Device = Literal["cpu", "metal", "cuda"]
Weights = Literal["full", "half", "packed"]
AttentionForm = Literal["matmul", "fused"]
Activations = Literal["polynomial", "native"]
Products = Literal["native", "bfloat16"]
DTYPES = ("float32", "float16", "bfloat16")


class Choices(NamedTuple):
    """The fields of :class:`vlmkit.backend.config.BackendConfig`; None: left to the machine."""

    device: Device | None = None
    weights: Weights | None = None
    attention: AttentionForm | None = None
    activations: Activations | None = None
    products: Products | None = None
    compile: bool | None = None
    blas: str | None = None
    threads: int | None = None
    wired: float | None = None


UNCHOSEN = Choices()

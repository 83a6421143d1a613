"""The ``backend`` section of a run: what computes and how, where the machine is not to choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from vlmkit.backend.choices import (
    Activations,
    AttentionForm,
    Choices,
    Device,
    Products,
    Weights,
)
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.errors import VlmkitError


class BackendConfig(StageConfig):
    """What computes, and how. Each null is chosen for the machine when a model is loaded.

    Example:
        >>> BackendConfig(weights="half").weights
        'half'
    """

    device: Device | None = Field(
        default=None, description="cpu, metal (a Mac's GPU) or cuda (NVIDIA); null: MLX's default"
    )
    weights: Weights | None = Field(
        default=None,
        description="how matrices are held: full, in the dtype of the computation; half, in 16 "
        "bits and widened where they are used; packed, as a quantized checkpoint has them; "
        "null: on a CPU the first of these that fits the memory, on a GPU as the checkpoint is",
    )
    attention: AttentionForm | None = Field(
        default=None,
        description="matmul: two matrix products and a softmax; fused: MLX's kernel; "
        "null: matmul on a CPU, fused on a GPU",
    )
    activations: Activations | None = Field(
        default=None,
        description="exp, tanh and erf: polynomial, by arithmetic alone; native, MLX's functions; "
        "null: polynomial on a CPU, native on a GPU",
    )
    products: Products | None = Field(
        default=None,
        description="bfloat16: inputs rounded to it and float32 sums, by a CPU with AVX512-BF16 or "
        "AMX and a C compiler; native: as MLX multiplies; null: bfloat16 where dtype: bfloat16 is "
        "asked for, the CPU can, and the model is large enough",
    )
    compile: bool | None = Field(
        default=None,
        description="fuse arithmetic with mx.compile, which on a CPU takes g++; null: on a CPU "
        "where g++ is there and the model is large enough, on a GPU always",
    )
    blas: str | None = Field(
        default=None,
        min_length=1,
        description="library for products on a CPU: the path of one, or 'mlx' for the one that "
        "MLX came with; null: the fastest that computes right",
    )
    threads: Int | None = Field(
        default=None,
        ge=1,
        description="threads of that library; null: one per core. A setting of the process",
    )
    wired: Float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="share of the memory that a Mac's GPU may keep resident; null: 1",
    )

    @property
    def choices(self) -> Choices:
        """The same as plain values."""
        return Choices(**self.model_dump())


def as_choices(given: BackendConfig | Mapping[str, Any] | None) -> Choices:
    """Return what a caller says of the backend, checked.

    Raises:
        VlmkitError: an unknown key or value.

    Example:
        >>> as_choices({"device": "cpu"}).device
        'cpu'
    """
    if given is None:
        return Choices()
    if isinstance(given, BackendConfig):
        return given.choices
    if not isinstance(given, Mapping):
        raise VlmkitError(
            f"backend is {given!r}; give a mapping such as {{'weights': 'half'}}, or None"
        )
    return BackendConfig.model_validate(dict(given)).choices

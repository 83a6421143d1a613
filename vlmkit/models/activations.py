"""The activations that checkpoints name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import mlx.core as mx
import mlx.nn as nn


def quick_gelu(x: mx.array) -> mx.array:
    """``x * sigmoid(1.702 x)``."""
    return x * mx.sigmoid(1.702 * x)


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)``."""
    return x * mx.sigmoid(x)


ACTIVATIONS: Mapping[str, Callable[[mx.array], mx.array]] = MappingProxyType(
    {
        "silu": silu,
        "quick_gelu": quick_gelu,
        "gelu": nn.gelu,
        "gelu_pytorch_tanh": nn.gelu_approx,
    }
)

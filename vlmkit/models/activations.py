"""The activations that checkpoints name.

Plain operations: those of mlx.nn are compiled at first use, which on a CPU starts a C++ compiler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import mlx.core as mx


def quick_gelu(x: mx.array) -> mx.array:
    """``x * sigmoid(1.702 x)``."""
    return x * mx.sigmoid(1.702 * x)


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)``."""
    return x * mx.sigmoid(x)


def gelu(x: mx.array) -> mx.array:
    """``x * (1 + erf(x / sqrt(2))) / 2``."""
    return x * (0.5 + 0.5 * mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """``x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``."""
    inner = x * (math.sqrt(2 / math.pi) + (0.044715 * math.sqrt(2 / math.pi)) * x * x)
    return x * (0.5 + 0.5 * mx.tanh(inner))


ACTIVATIONS: Mapping[str, Callable[[mx.array], mx.array]] = MappingProxyType(
    {
        "silu": silu,
        "quick_gelu": quick_gelu,
        "gelu": gelu,
        "gelu_pytorch_tanh": gelu_tanh,
    }
)

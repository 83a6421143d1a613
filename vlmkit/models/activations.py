"""The activations that checkpoints name.

On a GPU they are those of mlx.nn, compiled to one kernel each. On a CPU that would start a C++
compiler at first use, and gain little: there they are plain operations, exponentials rather than
sigmoids, which take a fifth longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import mlx.core as mx
import mlx.nn as nn


def on_gpu() -> bool:
    """Tell whether arrays are computed on a GPU by default."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)``.

    Example:
        >>> silu(mx.array([0.0, 1.0])).tolist()
        [0.0, 0.7310585975646973]
    """
    return nn.silu(x) if on_gpu() else x / (1 + mx.exp(-x))


def quick_gelu(x: mx.array) -> mx.array:
    """``x * sigmoid(1.702 x)``."""
    return nn.gelu_fast_approx(x) if on_gpu() else x / (1 + mx.exp(-1.702 * x))


def gelu(x: mx.array) -> mx.array:
    """``x * (1 + erf(x / sqrt(2))) / 2``."""
    return nn.gelu(x) if on_gpu() else x * (0.5 + 0.5 * mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """``x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``."""
    if on_gpu():
        fused: mx.array = nn.gelu_approx(x)
        return fused
    scale = math.sqrt(2 / math.pi)
    return x * (0.5 + 0.5 * mx.tanh(x * (scale + (0.044715 * scale) * x * x)))


ACTIVATIONS: Mapping[str, Callable[[mx.array], mx.array]] = MappingProxyType(
    {
        "silu": silu,
        "quick_gelu": quick_gelu,
        "gelu": gelu,
        "gelu_pytorch_tanh": gelu_tanh,
    }
)

"""How attention and activations are computed: functions that a model is built with.

Three sets of activations give the same values within float rounding: MLX's own, plain arithmetic in
place of exp, tanh and erf (:mod:`vlmkit.backend.polynomials`), and that arithmetic compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, partial, wraps
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend import polynomials
from vlmkit.backend.attention import Attention, Softmax, fused_attention, matmul_attention, softmax
from vlmkit.backend.choices import Activations, AttentionForm
from vlmkit.backend.host_exponentials import MIN_NUMBERS, host_sigmoid, host_softmax
from vlmkit.backend.prefixed_attention import (
    Powers,
    PrefixedAttention,
    powers,
    prefixed_attention,
)

Activation = Callable[[mx.array], mx.array]

BLOCK = 2**17
"""Numbers that plain operations take at a time: 512 KiB, so that each finds them in a cache."""

MIN_EXPONENTS = 2**12
"""Below so many scores MLX's softmax, one operation, is faster than several."""

_ROOT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBE = 0.044715
_SILU_END = -18.0  # there silu is 3e-7; beyond it an error of the sigmoid would grow with x


class Forms(NamedTuple):
    """Functions that compute the same everywhere, each in the way that is fast here."""

    activations: Mapping[str, Activation]  # by the name that checkpoints give them
    swiglu: Callable[[mx.array, mx.array], mx.array]  # (gate, up) -> silu(gate) * up
    attention: Attention
    prefixed: PrefixedAttention | None  # of rows that share a prefix; None: they have copies of it
    fused_delta: bool  # the gated delta rule has a kernel of its own here (Metal)

    @property
    def silu(self) -> Activation:
        """``x * sigmoid(x)``."""
        return self.activations["silu"]

    @property
    def gelu(self) -> Activation:
        """``x * (1 + erf(x / sqrt(2))) / 2``."""
        return self.activations["gelu"]


@lru_cache(maxsize=32)  # what is compiled once serves every model
def make_forms(
    *,
    attention: AttentionForm,
    activations: Activations,
    on_gpu: bool,
    compiled: bool,
    metal: bool,
    vector_exp: bool = False,
) -> Forms:
    """Return the forms of a choice.

    Args:
        attention: two matrix products, or MLX's kernel.
        activations: MLX's functions, or arithmetic alone.
        on_gpu: MLX's functions are those of mlx.nn, one kernel each.
        compiled: fuse arithmetic with ``mx.compile``; on a CPU that takes a C++ compiler, half a
            second per function when it is used for the first time on a machine.
        metal: the kernels of a Metal GPU are there.
        vector_exp: of many numbers numpy computes the exponentials
            (:mod:`vlmkit.backend.host_exponentials`).

    Example:
        >>> forms = make_forms(
        ...     attention="matmul", activations="polynomial", on_gpu=False, compiled=False,
        ...     metal=False,
        ... )
        >>> forms.silu(mx.array([0.0, 1.0])).round(decimals=6).tolist()
        [0.0, 0.7310590147972107]
    """
    weights: Softmax = softmax
    exponentials: Powers = powers
    swiglu: _Function | None
    if activations == "native":
        named, swiglu = (_of_mlx_nn if on_gpu else _of_mlx)(), None
    else:
        finish = _compiled if compiled else _in_blocks
        named = {name: finish(function) for name, function in _ARITHMETIC.items()}
        swiglu = finish(_swiglu)
        exponentials = _powers(compiled)
        weights = _softmax(exponentials)
    if vector_exp:
        weights = host_softmax(weights)
        named = {
            name: host_sigmoid(few, _SIGMOIDS[name]) if name in _SIGMOIDS else few
            for name, few in named.items()
        }
    silu = named["silu"]
    if swiglu is not None and vector_exp:
        swiglu = _of_many(lambda gate, up: silu(gate) * up, swiglu)
    attend: Attention = fused_attention
    if attention == "matmul":
        attend = partial(matmul_attention, softmax=weights)
    return Forms(
        named,
        swiglu or (lambda gate, up: silu(gate) * up),
        attend,
        partial(prefixed_attention, powers=exponentials),
        fused_delta=metal,
    )


def _of_mlx_nn() -> dict[str, Activation]:
    return {
        "silu": nn.silu,
        "quick_gelu": nn.gelu_fast_approx,
        "gelu": nn.gelu,
        "gelu_pytorch_tanh": nn.gelu_approx,
    }


def _of_mlx() -> dict[str, Activation]:
    # Exponentials rather than sigmoids, which take a fifth longer on a CPU.
    return {
        "silu": lambda x: x / (1 + mx.exp(-x)),
        "quick_gelu": lambda x: x / (1 + mx.exp(-1.702 * x)),
        "gelu": lambda x: x * (0.5 + 0.5 * mx.erf(x * _ROOT_HALF)),
        "gelu_pytorch_tanh": lambda x: x * (0.5 + 0.5 * mx.tanh(_tanh_argument(x))),
    }


def _tanh_argument(x: mx.array) -> mx.array:
    return x * (_TANH_SCALE + (_TANH_CUBE * _TANH_SCALE) * x * x)


def _silu(x: mx.array) -> mx.array:
    return mx.maximum(x, _SILU_END) * polynomials.sigmoid(x)


def _quick_gelu(x: mx.array) -> mx.array:
    return mx.maximum(x, _SILU_END / 1.702) * polynomials.sigmoid(1.702 * x)


def _gelu(x: mx.array) -> mx.array:
    return mx.maximum(x, -6.0) * (0.5 + 0.5 * polynomials.erf(x * _ROOT_HALF))


def _gelu_tanh(x: mx.array) -> mx.array:
    return mx.maximum(x, -6.0) * (0.5 + 0.5 * polynomials.tanh(_tanh_argument(x)))


def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return _silu(gate) * up


_ARITHMETIC: Mapping[str, Activation] = {
    "silu": _silu,
    "quick_gelu": _quick_gelu,
    "gelu": _gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
}

_SIGMOIDS: Mapping[str, Activation] = {
    "silu": lambda x: x,
    "quick_gelu": lambda x: 1.702 * x,
    "gelu_pytorch_tanh": lambda x: 2 * _tanh_argument(x),
}
"""Activations that are ``x * sigmoid(argument)``: the argument. (1 + tanh(z)) / 2 is such a one."""

_Function = Callable[..., mx.array]


def _of_many(many: _Function, few: _Function) -> _Function:
    return lambda gate, up: (many if gate.size >= MIN_NUMBERS else few)(gate, up)


def _compiled(function: _Function) -> _Function:
    """Fuse a function of arrays of one shape; computed in float32, returned in their dtype."""

    def widened(*arrays: mx.array) -> mx.array:
        return function(*(x.astype(mx.float32) for x in arrays)).astype(arrays[0].dtype)

    fused: _Function = mx.compile(widened, shapeless=True)
    return fused


def _in_blocks(function: _Function) -> _Function:
    """Run a function of arrays of one shape over parts of them, in float32."""

    @wraps(function)
    def run(*arrays: mx.array) -> mx.array:
        shape, size, dtype = arrays[0].shape, arrays[0].size, arrays[0].dtype
        arrays = tuple(x.astype(mx.float32) for x in arrays)
        if size <= BLOCK:
            return function(*arrays).astype(dtype)
        flat = [x.reshape(-1) for x in arrays]
        parts = [
            function(*(x[start : start + BLOCK] for x in flat)) for start in range(0, size, BLOCK)
        ]
        return mx.concatenate(parts).reshape(shape).astype(dtype)

    return run


def _powers(compiled: bool) -> Powers:
    def shifted(scores: mx.array, top: mx.array) -> tuple[mx.array, mx.array]:
        return polynomials.split_exp(scores - top)

    # For all shapes at once: in decoding there is one key more at every step.
    split = mx.compile(shifted, shapeless=True) if compiled else shifted

    def exponentials(scores: mx.array, top: mx.array) -> mx.array:
        if scores.size < MIN_EXPONENTS:
            return powers(scores, top)
        return polynomials.join_exp(*split(scores, top))

    return exponentials


def _softmax(exponentials: Powers) -> Softmax:
    def weights(scores: mx.array) -> mx.array:
        if scores.size < MIN_EXPONENTS:
            return softmax(scores)
        above = exponentials(scores, mx.max(scores, axis=-1, keepdims=True))
        return above / mx.sum(above, axis=-1, keepdims=True)

    return weights

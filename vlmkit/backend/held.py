"""Matrices held smaller than they are multiplied: in 16 bits, or packed as a checkpoint has them.

On a CPU only float32 products are fast. So a part of the matrix at a time is widened, multiplied
and dropped: a part that stays in the processor's cache costs one more pass over it, no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

PART = 2**20
"""Numbers of a matrix that are widened at a time: 4 MiB of float32."""

MIN_ROWS = 8
"""Rows from which on widening a packed matrix is faster than MLX's product of packed ones."""


def multiply_parts(
    x: mx.array, num_outputs: int, widen: Callable[[int, int], mx.array], bias: mx.array | None
) -> mx.array:
    """Return ``x @ W.T``, plus the bias, from parts of W.

    Args:
        x: ``[..., inputs]``.
        num_outputs: rows of W.
        widen: (start, stop) -> those rows of W, in the dtype of x.
        bias: ``[outputs]``.
    """
    step = max(PART // x.shape[-1], 1)
    parts = [
        x @ widen(start, min(start + step, num_outputs)).T for start in range(0, num_outputs, step)
    ]
    product = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)
    return product if bias is None else product + bias


class HalfLinear(nn.Linear):
    """A Linear whose matrix is held in 16 bits and multiplied in the dtype of its input.

    Example:
        >>> layer = HalfLinear(2, 1, bias=False)
        >>> layer.weight = mx.array([[0.5, 2.0]], mx.bfloat16)
        >>> layer(mx.ones((1, 2))).item()
        2.5
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[..., inputs]`` to ``[..., outputs]``."""
        bias = self.bias if "bias" in self else None
        return multiply_parts(x, self.weight.shape[0], self._widen(x.dtype), bias)

    def _widen(self, dtype: mx.Dtype) -> Callable[[int, int], mx.array]:
        return lambda start, stop: self.weight[start:stop].astype(dtype)


class HalfEmbedding(nn.Embedding):
    """An Embedding held in 16 bits; as a head it is multiplied in the dtype of its input."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Map ``[..., dims]`` to ``[..., vocabulary]``."""
        return multiply_parts(
            x, self.weight.shape[0], lambda i, j: self.weight[i:j].astype(x.dtype), None
        )


class PackedLinear(nn.QuantizedLinear):
    """A QuantizedLinear that widens its matrix where several rows share the work."""

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[..., inputs]`` to ``[..., outputs]``."""
        if _num_rows(x) < MIN_ROWS:
            few: mx.array = super().__call__(x)  # type: ignore[no-untyped-call]
            return few
        bias = self.bias if "bias" in self else None
        return multiply_parts(x, self.weight.shape[0], _unpack(self, x.dtype), bias)


class PackedEmbedding(nn.QuantizedEmbedding):
    """A QuantizedEmbedding that, as a head, widens its matrix for several rows."""

    def as_linear(self, x: mx.array) -> mx.array:
        """Map ``[..., dims]`` to ``[..., vocabulary]``."""
        if _num_rows(x) < MIN_ROWS:
            few: mx.array = super().as_linear(x)  # type: ignore[no-untyped-call]
            return few
        return multiply_parts(x, self.weight.shape[0], _unpack(self, x.dtype), None)


def hold_half(model: nn.Module) -> None:
    """Let the matrices of a model be 16-bit ones; its weights are put in afterwards."""
    _replace(model, {nn.Linear: HalfLinear, nn.Embedding: HalfEmbedding})


def hold_packed(model: nn.Module) -> None:
    """Let a model with quantized modules multiply them as a CPU likes it."""
    _replace(model, {nn.QuantizedLinear: PackedLinear, nn.QuantizedEmbedding: PackedEmbedding})


def half_paths(model: nn.Module) -> set[str]:
    """Return the paths of the matrices that :func:`hold_half` is about."""
    return {f"{path}.weight" for path, module in _leaves(model) if type(module) in _HALVED}


_HALVED = (nn.Linear, nn.Embedding)


def _num_rows(x: mx.array) -> int:
    return x.size // max(x.shape[-1], 1)


def _unpack(
    module: nn.QuantizedLinear | nn.QuantizedEmbedding, dtype: mx.Dtype
) -> Callable[[int, int], mx.array]:
    biases = module.get("biases")

    def widen(start: int, stop: int) -> mx.array:
        return mx.dequantize(
            module.weight[start:stop],
            scales=module.scales[start:stop],
            biases=None if biases is None else biases[start:stop],
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
            dtype=dtype,
        )

    return widen


def _leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    modules: list[tuple[str, nn.Module]] = model.named_modules()  # type: ignore[no-untyped-call]
    yield from modules


def _replace(model: nn.Module, kinds: dict[type[nn.Module], type[nn.Module]]) -> None:
    """Put modules of other kinds, with the same contents, in the places of some."""
    replaced = []
    for path, module in _leaves(model):
        if path and (kind := kinds.get(type(module))) is not None:
            other = kind.__new__(kind)
            nn.Module.__init__(other)  # type: ignore[no-untyped-call]
            dict.update(other, module)
            vars(other).update(vars(module))
            replaced.append((path, other))
    model.update_modules(tree_unflatten(replaced))

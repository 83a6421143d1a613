"""Modules that hold their matrix in bfloat16, laid out for the processor's bfloat16 products."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from vlmkit.backend.blas_bfloat16 import can_pack, multiply_packed, pack_bfloat16, packed_rows


class Bfloat16Linear(nn.Module):
    """A Linear with a bfloat16 matrix. Activations are rounded to bfloat16, sums are float32.

    Args:
        linear: what it is made from. Its inputs are a multiple of 32.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_outputs = linear.weight.shape[0]
        self.packed = pack_bfloat16(linear.weight)
        if "bias" in linear:
            self.bias = linear.bias.astype(mx.float32)

    def __call__(self, x: mx.array) -> mx.array:
        """Map float32 ``[..., inputs]`` to ``[..., outputs]``."""
        product = multiply_packed(x, self.packed, self.num_outputs)
        return product + self.bias if "bias" in self else product


class Bfloat16Embedding(nn.Module):
    """An Embedding with a bfloat16 matrix, which may be the head as well.

    Args:
        embedding: what it is made from. Its dims are a multiple of 32.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_embeddings = embedding.weight.shape[0]
        self.packed = pack_bfloat16(embedding.weight)

    def __call__(self, ids: mx.array) -> mx.array:
        """Look up ids ``[...]``: float32 ``[..., dims]``."""
        return packed_rows(self.packed, ids).astype(mx.float32)

    def as_linear(self, x: mx.array) -> mx.array:
        """Map float32 ``[..., dims]`` to ``[..., vocabulary]``."""
        return multiply_packed(x, self.packed, self.num_embeddings)


def pack_modules(model: nn.Module) -> int:
    """Let the matrices of a loaded model be bfloat16 ones, one after the other.

    Linear and Embedding modules are replaced, except those with a number of inputs that can't be
    packed. Each old matrix is let go before the next is packed, where nothing else holds it.

    Args:
        model: with its weights. :func:`vlmkit.backend.blas_bfloat16.install_bfloat16` has found
            that the products are available.

    Returns:
        How many modules were replaced.
    """
    modules: list[tuple[str, nn.Module]] = model.named_modules()  # type: ignore[no-untyped-call]
    paths = [path for path, module in modules if path and _can_replace(module)]
    found = dict(modules)
    del modules
    for path in paths:
        module = found.pop(path)
        kind = Bfloat16Linear if isinstance(module, nn.Linear) else Bfloat16Embedding
        other = kind(module)  # type: ignore[arg-type]
        mx.eval(other.packed)
        model.update_modules(tree_unflatten([(path, other)]))
    return len(paths)


def _can_replace(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, nn.Embedding) and can_pack(module.weight.shape[1])

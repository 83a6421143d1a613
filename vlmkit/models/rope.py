"""Rotary position embeddings: the angles once per forward pass, for all layers, in float32."""

from __future__ import annotations

import functools
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


class Rotation(NamedTuple):
    """The angles of a forward pass, laid out for :func:`rotate`."""

    cos: mx.array  # [..., head_dim], both halves equal
    sin: mx.array  # [..., head_dim], the first half negated


def inverse_frequencies(dim: int, theta: float) -> mx.array:
    """Return ``theta**(-2j / dim)`` for j < dim / 2, float32.

    Example:
        >>> inverse_frequencies(4, 100.0).tolist()
        [1.0, 0.10000000149011612]
    """
    return mx.array(_inverse_frequencies(dim, theta))


@functools.lru_cache(maxsize=64)
def _inverse_frequencies(dim: int, theta: float) -> NDArray[np.float32]:
    # Every decode step asks for the same numbers.
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    frequencies: NDArray[np.float32] = np.float32(1.0) / np.float32(theta) ** exponents
    frequencies.flags.writeable = False
    return frequencies


def mrope_rotation(
    positions: mx.array,
    *,
    head_dim: int,
    theta: float,
    sections: tuple[int, ...],
    dtype: mx.Dtype = mx.float32,
) -> Rotation:
    """Return the angles of chunked M-RoPE: section i of the frequencies turns with axis ``i % 3``.

    Frequency j of ``head_dim / 2`` turns by ``positions[axis(j)] * theta**(-2j / head_dim)``.

    Args:
        positions: int32 ``[A, B, L]``; A = 3, or 1 where all axes agree.
        head_dim: size of a head.
        theta: the base.
        sections: frequencies per section.
        dtype: of the result; the angles are computed in float32.

    Returns:
        Arrays ``[B, 1, L, head_dim]``.

    Reference: Su et al. (2021), arXiv:2104.09864; Wang et al. (2024), arXiv:2409.12191.
    """
    inverse = inverse_frequencies(head_dim, theta)
    if positions.shape[0] == 1:
        angles = positions[0, :, None, :, None].astype(mx.float32) * inverse
    else:
        axes = [i % 3 for i, size in enumerate(sections) for _ in range(size)]
        per_frequency = positions.astype(mx.float32)[mx.array(axes)]  # [head_dim / 2, B, L]
        angles = per_frequency.transpose(1, 2, 0)[:, None] * inverse
    return rotation(angles, dtype=dtype)


def rotation(angles: mx.array, *, dtype: mx.Dtype = mx.float32) -> Rotation:
    """Lay out angles ``[..., head_dim / 2]`` for :func:`rotate`."""
    cos, sin = mx.cos(angles), mx.sin(angles)
    return Rotation(
        mx.concatenate([cos, cos], axis=-1).astype(dtype),
        mx.concatenate([-sin, sin], axis=-1).astype(dtype),
    )


def rotate(x: mx.array, rotation: Rotation) -> mx.array:
    """Turn each pair ``(x[..., j], x[..., j + head_dim / 2])`` by its angle.

    Args:
        x: ``[..., head_dim]``.
        rotation: its arrays broadcast over x.

    Example:
        >>> quarter = rotation(mx.array([np.pi / 2]))
        >>> rotate(mx.array([1.0, 0.0]), quarter).round().tolist()
        [-0.0, 1.0]
    """
    half = x.shape[-1] // 2
    swapped = mx.concatenate([x[..., half:], x[..., :half]], axis=-1)
    return x * rotation.cos + swapped * rotation.sin

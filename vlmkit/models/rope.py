"""Rotary position embeddings: the angles once per forward pass, for all layers, in float32."""

from __future__ import annotations

import functools
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


class Rotation(NamedTuple):
    """The angles of a forward pass, laid out for :func:`rotate`."""

    cos: mx.array  # [..., dim], both halves equal
    sin: mx.array  # [..., dim], the first half negated


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
    dim: int,
    theta: float,
    sections: tuple[int, ...],
    factor: float = 1.0,
    interleaved: bool = False,
    dtype: mx.Dtype = mx.float32,
) -> Rotation:
    """Return the angles of M-RoPE: each frequency turns with the position on one of three axes.

    Frequency j of ``dim / 2`` turns by ``positions[axis(j)] * theta**(-2j / dim)``. In chunks,
    the frequencies of section i go with axis ``i % 3``. Interleaved, frequency j goes with axis
    ``j % 3``, but with axis 0 once the section of that axis is used up.

    Args:
        positions: int32 ``[A, B, L]``; A = 3, or 1 where all axes agree.
        dim: how much of a head turns.
        theta: the base.
        sections: frequencies per section.
        factor: positions are divided by it.
        interleaved: how the sections lie.
        dtype: of the result; the angles are computed in float32.

    Returns:
        Arrays ``[B, 1, L, dim]``.

    Reference: Su et al. (2021), arXiv:2104.09864; Wang et al. (2024), arXiv:2409.12191; Bai et
    al. (2025), "Qwen3-VL Technical Report", arXiv:2511.21631 (interleaved).
    """
    inverse = inverse_frequencies(dim, theta)
    inverse = inverse if factor == 1 else inverse / factor
    if positions.shape[0] == 1:
        angles = positions[0, :, None, :, None].astype(mx.float32) * inverse
    else:
        axes = _axes(sections, interleaved)
        per_frequency = positions.astype(mx.float32)[mx.array(axes)]  # [dim / 2, B, L]
        angles = per_frequency.transpose(1, 2, 0)[:, None] * inverse
    return rotation(angles, dtype=dtype)


def _axes(sections: tuple[int, ...], interleaved: bool) -> list[int]:
    if not interleaved:
        return [i % 3 for i, size in enumerate(sections) for _ in range(size)]
    return [j % 3 if j < 3 * sections[j % 3] else 0 for j in range(sum(sections))]


def rotation(angles: mx.array, *, dtype: mx.Dtype = mx.float32) -> Rotation:
    """Lay out angles ``[..., dim / 2]`` for :func:`rotate`."""
    cos, sin = mx.cos(angles), mx.sin(angles)
    return Rotation(
        mx.concatenate([cos, cos], axis=-1).astype(dtype),
        mx.concatenate([-sin, sin], axis=-1).astype(dtype),
    )


def rotate(x: mx.array, rotation: Rotation) -> mx.array:
    """Turn each pair ``(x[..., j], x[..., j + dim / 2])`` by its angle.

    Args:
        x: ``[..., head_dim]``; what lies beyond the ``dim`` of the rotation stays as it is.
        rotation: its arrays broadcast over x.

    Example:
        >>> quarter = rotation(mx.array([np.pi / 2]))
        >>> rotate(mx.array([1.0, 0.0]), quarter).round().tolist()
        [-0.0, 1.0]
    """
    dim = rotation.cos.shape[-1]
    if dim < x.shape[-1]:
        return mx.concatenate([rotate(x[..., :dim], rotation), x[..., dim:]], axis=-1)
    half = dim // 2
    swapped = mx.concatenate([x[..., half:], x[..., :half]], axis=-1)
    return x * rotation.cos + swapped * rotation.sin

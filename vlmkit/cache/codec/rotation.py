"""Random matrices of a codec, by seed."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def random_rotation(dim: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Return a random orthogonal matrix, every one as likely as another: ``[dim, dim]``.

    Args:
        dim: at least 1.
        seed: equal seeds give equal matrices.
        stream: matrices of one seed that must not depend on one another have different ones.

    Example:
        >>> turn = random_rotation(8, seed=0)
        >>> np.allclose(turn @ turn.T, np.eye(8), atol=1e-6)
        True

    Reference: Mezzadri 2007, "How to generate random matrices from the classical compact groups".
    """
    orthogonal, upper = np.linalg.qr(random_gaussian(dim, seed, stream).astype(np.float64))
    return np.asarray(orthogonal * np.sign(np.diagonal(upper)), np.float32)


@cache
def signed_hadamard(dim: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Return :func:`hadamard` with columns of random sign; arguments as in random_rotation."""
    signs = np.sign(random_gaussian(dim, seed, stream)[0])
    return np.asarray(hadamard(dim) * signs, np.float32)


@cache
def hadamard(dim: int) -> NDArray[np.float32]:
    """Return the Hadamard matrix over √dim: symmetric, orthogonal, ``[dim, dim]``.

    A vector with one large channel becomes flat: all its coordinates have one magnitude.

    Args:
        dim: a power of 2.

    Example:
        >>> (hadamard(4) * 2).astype(int).tolist()
        [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]

    Reference: Ashkboos et al. 2024 (QuaRot), arXiv 2404.00456.
    """
    matrix = np.ones((1, 1))
    while matrix.shape[0] < dim:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(dim), np.float32)


@cache
def random_gaussian(dim: int, seed: int, stream: int = 0) -> NDArray[np.float32]:
    """Return independent N(0, 1): ``[dim, dim]``; arguments as in :func:`random_rotation`."""
    return np.random.default_rng((seed, dim, stream)).standard_normal((dim, dim), np.float32)

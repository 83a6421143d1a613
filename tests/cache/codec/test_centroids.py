"""Lloyd-Max centroids against their two conditions and published errors."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from scipy import integrate

from vlmkit.cache.codec.centroids import lloyd_max, nearest


@pytest.mark.parametrize("dim", [4, 16, 128])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_each_centroid_is_the_mean_of_what_is_nearest_to_it(dim: int, bits: int) -> None:
    found = lloyd_max(dim, bits)
    edges = [-1, *(found[1:] + found[:-1]) / 2, 1]
    for centroid, low, high in zip(found, edges[:-1], edges[1:], strict=True):
        mass = integrate.quad(lambda t: (1 - t * t) ** ((dim - 3) / 2), low, high)[0]
        mean = integrate.quad(lambda t: t * (1 - t * t) ** ((dim - 3) / 2), low, high)[0] / mass
        assert centroid == pytest.approx(mean, rel=1e-5)


def test_many_dimensions_give_the_quantizer_of_a_normal_density() -> None:
    # Max 1960, table I: 1 to 3 bits.
    for bits, positive in (
        (1, [0.7980]),
        (2, [0.4528, 1.510]),
        (3, [0.2451, 0.7560, 1.344, 2.152]),
    ):
        scaled = lloyd_max(2**16, bits)[2 ** (bits - 1) :] * 2**8
        np.testing.assert_allclose(scaled, positive, rtol=5e-4)


@pytest.mark.parametrize("bits", range(1, 9))
def test_centroids_ascend_and_are_symmetric(bits: int) -> None:
    found = lloyd_max(64, bits)
    assert len(found) == 2**bits
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -found[::-1])


def test_nearest_is_the_nearest() -> None:
    values = lloyd_max(32, 5).astype(np.float32)
    x = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    codes = np.array(nearest(mx.array(x), mx.array(values)))
    assert np.array_equal(codes, np.abs(x[:, None] - values).argmin(axis=1))

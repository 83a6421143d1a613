"""Published distortion of TurboQuant: N(0, 1) data, D=128, T=512, as for the affine codec."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cache.test_distortion import _data, _log_weights, _relative_mse, _with_offset_channels
from vlmkit.cache.codec.turboquant import TurboQuantConfig, turboquant

# bits: relative MSE; with two offset channels, relative MSE and attention KL
TABLE = {
    1: (0.3602, 0.332, 0.369),
    2: (0.1153, 0.101, 0.138),
    3: (0.0338, 0.0302, 0.0428),
    4: (0.0093, 0.0085, 0.0121),
}
PAPER = {1: 0.36, 2: 0.117, 3: 0.03, 4: 0.009}  # of unit vectors, arXiv 2504.19874; digits as given


def _restored(x: NDArray[np.float32], **config: Any) -> NDArray[np.float32]:
    codec = turboquant(TurboQuantConfig(**config))
    return np.array(codec.decode(codec.encode(mx.array(x)), mx.float32))


@pytest.mark.parametrize("bits", TABLE)
@pytest.mark.parametrize("rotation", ["haar", "hadamard"])
def test_distortion_is_as_published(rotation: str, bits: int) -> None:
    x = _data(0)
    measured = _relative_mse(x, _restored(x, bits=bits, rotation=rotation))
    assert measured == pytest.approx(TABLE[bits][0], rel=0.03)
    assert measured == pytest.approx(PAPER[bits], abs=0.5 * 10 ** -(2 if bits < 4 else 3))


@pytest.mark.parametrize("bits", TABLE)
def test_distortion_with_offset_channels_is_as_published(bits: int) -> None:
    _, relative, divergence = TABLE[bits]
    x = _with_offset_channels(_data(0))
    restored = _restored(x, bits=bits, rotation="hadamard")
    assert _relative_mse(x, restored) == pytest.approx(relative, rel=0.03)
    queries = _data(1)[:, :, :32]
    exact, approximate = _log_weights(queries, x), _log_weights(queries, restored)
    measured = float((np.exp(exact) * (exact - approximate)).sum(axis=-1).mean())
    assert measured == pytest.approx(divergence, rel=0.03)


def test_half_bits_lie_halfway() -> None:
    x = _data(0)
    for bits in (2.5, 3.5):
        below, above = TABLE[int(bits)][0], TABLE[int(bits) + 1][0]
        measured = _relative_mse(x, _restored(x, bits=bits))
        assert measured == pytest.approx((below + above) / 2, rel=0.03)

"""Published distortion of the affine codec: N(0, 1) data, D=128, T=512, groups of 64."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from vlmkit.cache.codec.affine import affine_codec

# bits: relative MSE, the same with two offset channels, attention KL with them
TABLE = {
    2: (0.156, 0.317, 0.454),
    3: (0.0364, 0.100, 0.143),
    4: (0.00829, 0.0225, 0.0316),
    8: (3e-5, 8e-5, 1e-4),
}
OFFSET = 11.0  # the one free parameter: fitted to the second column


def _data(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((2, 4, 512, 128), np.float32)


def _with_offset_channels(
    x: NDArray[np.float32], offsets: tuple[float, float] = (OFFSET, OFFSET)
) -> NDArray[np.float32]:
    x = x.copy()
    x[..., [3, 70]] += np.array(offsets, np.float32)
    return x


def _restored(x: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    codec = affine_codec(bits, 64)
    return np.array(codec.decode(codec.encode(mx.array(x)), mx.float32))


def _relative_mse(x: NDArray[np.float32], restored: NDArray[np.float32]) -> float:
    return float(((restored - x) ** 2).mean() / (x**2).mean())


def _log_weights(queries: NDArray[np.float32], keys: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = queries.astype(np.float64) @ keys.swapaxes(-1, -2) / np.sqrt(128)
    scores -= scores.max(axis=-1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True)))


@pytest.mark.parametrize("bits", TABLE)
def test_distortion_is_as_published(bits: int) -> None:
    plain, outliers, divergence = TABLE[bits]
    rounding = 0.1 if bits == 8 else 0.04  # 8 bits: the table has one digit
    x = _data(0)
    assert _relative_mse(x, _restored(x, bits)) == pytest.approx(plain, rel=rounding)
    x = _with_offset_channels(x)
    restored = _restored(x, bits)
    assert _relative_mse(x, restored) == pytest.approx(outliers, rel=rounding)
    queries = _data(1)[:, :, :32]
    exact, approximate = _log_weights(queries, x), _log_weights(queries, restored)
    measured = float((np.exp(exact) * (exact - approximate)).sum(axis=-1).mean())
    assert measured == pytest.approx(divergence, rel=0.2 if bits == 8 else 0.06)

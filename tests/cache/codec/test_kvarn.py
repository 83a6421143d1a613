"""KVarN against the authors' formulas in numpy, and what its balance is for."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from vlmkit.cache.codec.kvarn import ROUNDS, balance, kvarn
from vlmkit.cache.codec.rotation import hadamard

Array = NDArray[np.float64]


def data(seed: int, shape: tuple[int, ...] = (2, 3, 64, 32)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def reference_balance(tile: Array) -> tuple[Array, Array]:
    """One tile [R, C]: alternate log-domain normalisation, the best round kept."""

    def imbalance(x: Array) -> float:
        stds = [x.std(axis=axis, ddof=1) for axis in (0, 1)]
        return float(sum(s.max() / max(s.min(), 1e-8) for s in stds))

    log_columns, log_rows = np.zeros((1, tile.shape[1])), np.zeros((tile.shape[0], 1))
    best, least = (np.exp(log_rows), np.exp(log_columns)), imbalance(tile)
    for _ in range(ROUNDS):
        now = tile / np.exp(log_columns) / np.exp(log_rows)
        stds = np.clip(now.std(axis=0, ddof=1, keepdims=True), 1e-3, 1e3)
        log_columns = np.clip(log_columns + np.log(stds), -0.3, 10)
        now = tile / np.exp(log_columns) / np.exp(log_rows)
        stds = np.clip(now.std(axis=1, ddof=1, keepdims=True), 1e-3, 1e3)
        log_rows = np.clip(log_rows + np.log(stds), -0.3, 10)
        found = imbalance(tile / np.exp(log_columns) / np.exp(log_rows))
        if found <= least:
            best, least = (np.exp(log_rows), np.exp(log_columns)), found
    return best


def reference(x: Array, bits: int, along: str) -> Array:
    """One block [T, D], through the codec and back."""
    turn = hadamard(x.shape[-1]).astype(np.float64)
    tile = (x @ turn).T if along == "tokens" else x @ turn
    rows, columns = reference_balance(tile)
    even = tile / rows / columns
    low, high = even.min(axis=1, keepdims=True), even.max(axis=1, keepdims=True)
    step = np.maximum((high - low) / (2**bits - 1), 1e-10)
    q = np.round((even - low) / step)
    read = (q * np.float16(rows * step) + np.float16(rows * low)) * np.float16(columns)
    return (read.T if along == "tokens" else read) @ turn


def restored(x: NDArray[np.float32], bits: int, along: str) -> NDArray[np.float32]:
    codec = kvarn(bits, along)  # type: ignore[arg-type]
    return np.array(codec.decode(codec.encode(mx.array(x)), mx.float32))


def uneven(seed: int) -> NDArray[np.float32]:
    """Tokens and channels of very different sizes."""
    rng = np.random.default_rng(seed + 1000)
    tokens, channels = (np.exp(rng.normal(1.5, 1, n)).astype(np.float32) for n in (64, 32))
    return data(seed) * tokens[:, None] * channels


@pytest.mark.parametrize("along", ["tokens", "channels"])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("make", ["data", "uneven"])
def test_blocks_are_read_as_by_the_authors_formulas(make: str, bits: int, along: str) -> None:
    x = data(0) if make == "data" else uneven(0)
    found = restored(x, bits, along)
    wanted = np.array([[reference(t.astype(np.float64), bits, along) for t in row] for row in x])
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    # float32 moves a scale by 1e-6, and of 12,288 elements few lie so near to an edge.
    assert error < 3e-3
    assert (np.abs(found - wanted) > 1e-4 * np.abs(wanted).max()).mean() < 0.01


def spread(tile: NDArray[np.float32], axis: int) -> float:
    stds = tile.std(axis=axis, ddof=1)
    return float((stds.max(axis=-1) / stds.min(axis=-1)).max())


def test_balance_makes_deviations_even() -> None:
    rng = np.random.default_rng(1)
    sizes = np.exp(rng.uniform(-0.2, 0.2, (64, 1)) + rng.normal(1.5, 1, 32)).astype(np.float32)
    for tile, most in ((data(0) * sizes, 1.2), (uneven(0), 2.1)):  # no scale is below exp(-0.3)
        rows, columns = (np.array(x) for x in balance(mx.array(tile)))
        even = tile / rows / columns
        assert max(spread(even, -1), spread(even, -2)) < most
        assert max(spread(tile, -1), spread(tile, -2)) > 10


def test_small_tokens_keep_their_size_beside_large_ones() -> None:
    x = data(0)
    x[..., ::2, :] *= 100
    small = x[..., 1::2, :]
    balanced = restored(x, 4, "tokens")[..., 1::2, :]
    error = ((balanced - small) ** 2).mean() / (small**2).mean()
    assert error < 0.02
    # With one step per channel and no balance, a small token is less than a step.
    rotated = (x @ hadamard(32)).swapaxes(-1, -2)
    low, high = (f(rotated, axis=-1, keepdims=True) for f in (np.min, np.max))
    step = (high - low) / 15
    plain = (np.round((rotated - low) / step) * step + low).swapaxes(-1, -2) @ hadamard(32)
    assert ((plain[..., 1::2, :] - small) ** 2).mean() / (small**2).mean() > 10 * error


@pytest.mark.parametrize("along", ["tokens", "channels"])
def test_stored_bytes(along: str) -> None:
    codec = kvarn(2, along)  # type: ignore[arg-type]
    stored = codec.encode(mx.zeros((1, 1, 128, 64)))
    rows, columns = (64, 128) if along == "tokens" else (128, 64)
    assert sum(x.nbytes for x in stored) == 128 * 64 * 2 // 8 + 4 * rows + 2 * columns


@pytest.mark.parametrize("dim", [96, 80, 33])
@pytest.mark.parametrize("along", ["tokens", "channels"])
def test_any_head_dim(dim: int, along: str) -> None:
    x = data(0, (1, 2, 64, dim))
    assert ((restored(x, 8, along) - x) ** 2).mean() < 2e-4


def test_zeros_are_read_as_zeros() -> None:
    assert not restored(np.zeros((1, 1, 64, 32), np.float32), 2, "tokens").any()


def test_blocks_are_stored_each_by_itself() -> None:
    x = uneven(3)
    alone = restored(x[1:, 2:], 4, "tokens")
    np.testing.assert_allclose(restored(x, 4, "tokens")[1:, 2:], alone, rtol=1e-3, atol=1e-3)

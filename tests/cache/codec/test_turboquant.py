"""TurboQuant's laws: errors as published, scores right on average, tokens apart."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.effort import scaled
from vlmkit.cache.codec.turboquant import TurboQuantConfig, check_dim, turboquant
from vlmkit.errors import VlmkitError

CONFIGS: dict[str, dict[str, Any]] = {
    "1": {"bits": 1},
    "3": {"bits": 3},
    "8": {"bits": 8},
    "2.5": {"bits": 2.5},
    "hadamard": {"bits": 4, "rotation": "hadamard"},
    "corrected": {"bits": 2, "norm_correction": True},
    "prod": {"bits": 3, "estimator": "prod"},
    "prod_3.5": {"bits": 3.5, "estimator": "prod", "sketch": "orthonormal"},
}
every_config = pytest.mark.parametrize("name", CONFIGS)


def data(seed: int, dim: int = 32, count: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((2, 3, count, dim), np.float32)


def restored(x: NDArray[np.float32], **config: Any) -> NDArray[np.float32]:
    codec = turboquant(TurboQuantConfig(**config))
    return np.array(codec.decode(codec.encode(mx.array(x)), mx.float32))


@pytest.mark.parametrize("estimator", ["mse", "prod"])
@pytest.mark.parametrize(("bits", "size"), [(1, 18), (2, 34), (2.5, 44), (3.5, 60), (4, 66)])
def test_stored_bytes(estimator: str, bits: float, size: int) -> None:
    if estimator == "prod" and bits < 2:
        return
    codec = turboquant(TurboQuantConfig(bits=bits, estimator=estimator))
    stored = codec.encode(mx.zeros((1, 1, 10, 128)))
    norms = 1 if bits % 1 == 0 else 2  # the residual's too with prod
    assert sum(x.nbytes for x in stored) == 10 * (size + (2 * norms if estimator == "prod" else 0))


def test_three_and_a_half_bits_take_a_quarter_of_float16() -> None:
    stored = turboquant(TurboQuantConfig(bits=3.5)).encode(mx.zeros((1, 2, 64, 128)))
    assert sum(x.nbytes for x in stored) <= 0.25 * (2 * 64 * 128 * 2)


@every_config
@settings(max_examples=scaled(10))
@given(seed=st.integers(0, 2**31), power=st.integers(-10, 10), factor=st.floats(0.5, 2))
def test_a_scaled_vector_is_read_scaled(name: str, seed: int, power: int, factor: float) -> None:
    x = data(seed)
    plain = restored(x, **CONFIGS[name])
    # By powers of 2 all but the norms' rounding to float16 stays; those stay within its range.
    np.testing.assert_array_equal(
        restored(x * np.float32(2**power), **CONFIGS[name]), plain * 2**power
    )
    lengths = np.linalg.norm(plain, axis=-1, keepdims=True)
    scaled_by = restored(x * np.float32(factor), **CONFIGS[name]) / np.float32(factor)
    # A coordinate on an edge may go either way; the norms are within half a unit of 11 bits.
    differ = np.abs(scaled_by - plain) > 2**-10 * lengths
    assert differ.any(axis=-1).mean() <= 0.1


@every_config
def test_zeros_are_read_as_zeros(name: str) -> None:
    assert not restored(np.zeros((1, 1, 3, 32), np.float32), **CONFIGS[name]).any()


@every_config
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_token(name: str, bad: float) -> None:
    x = data(0)
    plain = restored(x, **CONFIGS[name])
    x[1, 2, 3, 5] = bad
    spoiled = restored(x, **CONFIGS[name])
    lost = np.isnan(spoiled).any(axis=-1)
    assert lost.sum() == 1
    assert lost[1, 2, 3]
    np.testing.assert_array_equal(spoiled[~lost], plain[~lost])


@every_config
@settings(max_examples=scaled(10))
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 5))
def test_tokens_are_stored_each_by_itself(name: str, seed: int, cut: int) -> None:
    x = mx.array(data(seed))
    codec = turboquant(TurboQuantConfig(**CONFIGS[name]))
    parts = [codec.encode(x[:, :, :cut]), codec.encode(x[:, :, cut:])]
    for whole, *cuts in zip(codec.encode(x), *parts, strict=True):
        joined = np.concatenate([np.array(part) for part in cuts], axis=2)
        # A matrix product's last bit depends on its size; of codes on an edge, few follow it.
        assert (joined != np.array(whole)).mean() < 0.01


@every_config
def test_coordinates_and_basis_give_the_scores_of_what_is_decoded(name: str) -> None:
    codec = turboquant(TurboQuantConfig(**CONFIGS[name]))
    stored, queries = codec.encode(mx.array(data(0))), mx.array(data(1))
    read = codec.decode(stored, mx.float32)
    assert codec.frame is not None
    found, basis = codec.frame.coordinates(stored, mx.float32), codec.frame.basis(stored)
    direct = (queries @ basis.T) @ found.swapaxes(-1, -2)
    np.testing.assert_allclose(direct, queries @ read.swapaxes(-1, -2), atol=1e-4)
    weights = mx.softmax(direct, axis=-1)
    np.testing.assert_allclose((weights @ found) @ basis, weights @ read, atol=1e-5)


@every_config
def test_the_seed_alone_decides(name: str) -> None:
    x, config = data(0), CONFIGS[name]
    first, again, other = (restored(x, **config, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_corrected_vector_keeps_its_norm() -> None:
    x = data(0, dim=64)
    norms = np.linalg.norm(x, axis=-1)
    corrected = np.linalg.norm(restored(x, bits=2, norm_correction=True), axis=-1)
    np.testing.assert_allclose(corrected, norms, rtol=2**-10)
    assert np.linalg.norm(restored(x, bits=2), axis=-1).mean() < 0.96 * norms.mean()


@pytest.mark.parametrize("sketch", ["gaussian", "orthonormal"])
@pytest.mark.parametrize("bits", [2, 3])
def test_inner_products_with_a_sketch_are_right_on_average(sketch: str, bits: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 1, 64), np.float32)
    query = (x / 8 + 0.3 * rng.standard_normal(64, np.float32)).reshape(64)
    exact = float(x.reshape(64) @ query)
    config = {"bits": bits, "estimator": "prod", "sketch": sketch}
    found = np.array([restored(x, **config, seed=s).reshape(64) @ query for s in range(600)])
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - exact) < 4 * error
    # The same without the sketch is too small, by the share of the norm that rounding takes.
    plain = np.array([restored(x, bits=bits - 1, seed=s).reshape(64) @ query for s in range(150)])
    assert plain.mean() < exact - 4 * plain.std() / np.sqrt(len(plain))
    assert plain.mean() < 0.93 * exact


def test_named_channels_get_the_bit_more() -> None:
    x = data(0, count=40)
    x[..., [3, 8, 20]] *= 30
    errors = [
        ((restored(x, bits=2.5, outlier_channels=named) - x) ** 2).mean()
        for named in [(3, 8, 20), (2, 9, 21)]
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize(
    ("config", "dim", "message"),
    [
        ({"bits": 2.3}, 32, "2.3 bits is not supported; use 1 to 8 in steps of 0.5"),
        ({"bits": 0.5}, 32, "0.5 bits is not supported"),
        ({"bits": 9}, 32, "9 bits is not supported"),
        ({"bits": 1.5, "estimator": "prod"}, 32, "prod needs 2 bits or more, got bits=1.5"),
        ({"estimator": "prod", "norm_correction": True}, 32, "norm_correction has no effect"),
        ({"sketch": "orthonormal"}, 32, "sketch has no effect with mse"),
        ({"outlier_channels": [1]}, 32, "outlier_channels has no effect with bits=4"),
        ({"bits": 2.5, "outlier_channels": [32]}, 32, "head_dim is 32: use channels 0 to 31"),
        ({"bits": 2.5, "outlier_channels": [-1]}, 32, "head_dim is 32: use channels 0 to 31"),
        ({"bits": 2.5, "outlier_channels": [*range(9)]}, 16, "at most half of head_dim 16, got 9"),
        ({"bits": 4}, 12, "bits: 4 needs a head_dim that is a multiple of 8, got 12"),
        ({"bits": 3.5}, 24, "3.5 needs a head_dim that is a multiple of 16, got 24"),
        ({"rotation": "hadamard"}, 48, "hadamard needs a power of 2, got 48 channels; use haar"),
    ],
)
def test_what_cannot_work(config: dict[str, Any], dim: int, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        check_dim(TurboQuantConfig(**config), dim)

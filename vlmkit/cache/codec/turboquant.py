"""TurboQuant: a random rotation, then the best scalar quantizer of what it makes of any vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from vlmkit.cache.codec.packing import MAX_BITS
from vlmkit.cache.codec.rotated import Quantizer, mse_quantizer, prod_quantizer
from vlmkit.cache.codec.rotation import random_gaussian, random_rotation, signed_hadamard
from vlmkit.cache.storage import Codec, Frame, Stored
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError


def _supported(bits: float) -> float:
    if not 1 <= bits <= MAX_BITS or bits * 2 % 1:
        raise ValueError(f"{bits:g} bits is not supported; use 1 to {MAX_BITS} in steps of 0.5")
    return bits


class TurboQuantConfig(StageConfig):
    """TurboQuant (arXiv 2504.19874): rotate at random, round to the best centroids."""

    kind: Literal["turboquant"] = "turboquant"
    bits: Annotated[float, AfterValidator(_supported)] = Field(
        4,
        description="Bits per element, 1 to 8. A half, as in 2.5, splits the channels: one half "
        "of them gets a bit more than the other.",
    )
    estimator: Literal["mse", "prod"] = Field(
        "mse",
        description="mse: least error of the vector. prod: one of the bits is a sketch of the "
        "rest's signs, which makes inner products with it unbiased; meant for keys.",
    )
    rotation: Literal["haar", "hadamard"] = Field(
        "haar",
        description="haar: any rotation, as in the paper. hadamard: a Hadamard matrix with random "
        "signs, for a head_dim that is a power of 2, as in vLLM.",
    )
    sketch: Literal["gaussian", "orthonormal"] = Field(
        "gaussian", description="The random matrix of the sketch; matters only with prod."
    )
    norm_correction: bool = Field(
        False, description="Give back each vector in its own length, as vLLM does; mse only."
    )
    outlier_channels: tuple[Int, ...] = Field(
        (),
        description="Channels of head_dim that belong to the half with a bit more, where bits "
        "ends in .5; those not named follow in even steps.",
    )
    seed: Int = Field(0, ge=0, description="Seed of the random matrices.")

    @model_validator(mode="after")
    def _goes_together(self) -> TurboQuantConfig:
        if self.estimator == "prod" and self.bits < 2:
            raise ValueError(f"prod needs 2 bits or more, got bits={self.bits:g}; use mse")
        if self.estimator == "prod" and self.norm_correction:
            raise ValueError("norm_correction has no effect with prod; leave out one of them")
        if self.estimator == "mse" and self.sketch != "gaussian":
            raise ValueError("sketch has no effect with mse; use estimator prod or leave it out")
        if self.outlier_channels and self.bits % 1 == 0:
            raise ValueError(
                f"outlier_channels has no effect with bits={self.bits:g}; use half bits, as in 2.5"
            )
        return self


def turboquant(config: TurboQuantConfig) -> Codec:
    """Build the codec of vectors, each stored by itself.

    With n = ‖x‖ and a random rotation Π, every coordinate of y = Π x / n has the same known
    density; each is rounded to the nearest of its ``2**bits`` Lloyd-Max centroids c, and x is read
    as n Πᵀ c. The norm takes 16 bits per vector. With ``prod`` the centroids have one bit less and
    the residual r = y - c leaves the signs of S r and its norm (16 bits more):
    ⟨q, x⟩ ≈ n [⟨Π q, c⟩ + sqrt(π/2) / dim ‖r‖ ⟨S Π q, sign(S r)⟩] for a Gaussian S, and with
    sqrt(π / (2 dim)) in place of the factor for an orthonormal one.

    Half bits: ``bits`` + 0.5 for one half of the channels and ``bits`` - 0.5 for the other, each
    with its own rotation and norms. The paper takes 32 of 128 channels found to be outliers, at 3
    and 2 bits, and calls it 2.5 (it is 2.25). Here ``bits`` is what is stored, and the channels are
    every second one or those named: a choice by the data would make what a token is stored as
    depend on other tokens.

    Vectors have a multiple of 8 channels, with half bits one of 16; :func:`check_dim` says so.

    Example:
        >>> codec = turboquant(TurboQuantConfig(bits=4))
        >>> x = mx.random.normal((1, 1, 5, 64), key=mx.random.key(0))
        >>> stored = codec.encode(x)
        >>> [(a.shape[-1], str(a.dtype)) for a in stored]
        [(32, 'mlx.core.uint8'), (1, 'mlx.core.float16')]
        >>> read = codec.decode(stored, mx.float32)
        >>> bool(((read - x).square().mean() < 0.015).item())
        True

    Reference: Zandieh et al. 2025, arXiv 2504.19874, algorithms 1 and 2 and section 4.3; norm
    correction: vLLM, vllm-project/vllm pull 38479.
    """

    def encode(x: mx.array) -> Stored:
        return _of_dim(config, x.shape[-1]).encode(x)

    def coordinates(stored: Stored, dtype: mx.Dtype) -> mx.array:
        return _of_stored(config, stored).coordinates(stored, dtype)

    def basis(stored: Stored) -> mx.array:
        return _of_stored(config, stored).basis

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        return (coordinates(stored, mx.float32) @ basis(stored)).astype(dtype)

    return Codec(encode, decode, quantizes=True, frame=Frame(coordinates, basis))


def check_dim(config: TurboQuantConfig, dim: int) -> None:
    """Raise VlmkitError, its path the key, unless the codec works for vectors of ``dim`` channels.

    >>> check_dim(TurboQuantConfig(bits=2.5), 24)
    Traceback (most recent call last):
    vlmkit.errors.VlmkitError: bits: 2.5 needs a head_dim that is a multiple of 16, got 24
    """
    _of_dim(config, dim)


def _of_stored(config: TurboQuantConfig, stored: Stored) -> Quantizer:
    bits = math.ceil(config.bits) - (config.estimator == "prod")
    in_part = 8 * stored[0].shape[-1] // bits
    return _of_dim(config, in_part * (1 if config.bits % 1 == 0 else 2))


@cache
def _of_dim(config: TurboQuantConfig, dim: int) -> Quantizer:
    places = _split(config, dim)
    first = _quantizer(config, math.ceil(config.bits), len(places[0]), stream=0)
    if len(places) == 1:
        return first
    second = _quantizer(config, math.floor(config.bits), len(places[1]), stream=2)
    return _together(first, second, places, dim)


def _split(config: TurboQuantConfig, dim: int) -> list[NDArray[np.int64]]:
    """The channels with more bits and those with fewer; whole bits: all."""
    unit = 8 if config.bits % 1 == 0 else 16  # so that what is stored says how many there are
    if dim % unit:
        raise VlmkitError(
            f"bits: {config.bits:g} needs a head_dim that is a multiple of {unit}, got {dim}",
            path=("bits",),
        )
    if unit == 8:
        return [np.arange(dim)]
    named = np.unique(np.array(config.outlier_channels, np.int64))
    if named.size and (named.min() < 0 or named.max() >= dim):
        raise VlmkitError(
            f"outlier_channels: head_dim is {dim}: use channels 0 to {dim - 1}",
            path=("outlier_channels",),
        )
    if named.size > dim // 2:
        raise VlmkitError(
            f"outlier_channels: at most half of head_dim {dim}, got {named.size}",
            path=("outlier_channels",),
        )
    rest = np.setdiff1d(np.arange(dim), named)
    evenly = np.arange(dim // 2 - named.size) * rest.size // max(dim // 2 - named.size, 1)
    more = np.sort(np.concatenate([named, rest[evenly]]))
    return [more, np.setdiff1d(np.arange(dim), more)]


def _quantizer(config: TurboQuantConfig, bits: int, dim: int, *, stream: int) -> Quantizer:
    if config.rotation == "haar":
        rotation = random_rotation(dim, config.seed, stream)
    elif dim & (dim - 1):
        raise VlmkitError(
            f"rotation: hadamard needs a power of 2, got {dim} channels; use haar",
            path=("rotation",),
        )
    else:
        rotation = signed_hadamard(dim, config.seed, stream)
    if config.estimator == "mse":
        return mse_quantizer(rotation, bits, corrected=config.norm_correction)
    if config.sketch == "gaussian":
        gaussian = random_gaussian(dim, config.seed, stream + 1)
        return prod_quantizer(rotation, bits, gaussian, math.sqrt(math.pi / 2) / dim)
    orthonormal = random_rotation(dim, config.seed, stream + 1)
    return prod_quantizer(rotation, bits, orthonormal, math.sqrt(math.pi / 2 / dim))


def _together(
    first: Quantizer, second: Quantizer, places: Sequence[NDArray[np.int64]], dim: int
) -> Quantizer:
    """One quantizer of those of some channels each."""
    takes = [mx.array(own.astype(np.int32)) for own in places]
    both = np.zeros((first.basis.shape[0] + second.basis.shape[0], dim), np.float32)
    both[: first.basis.shape[0], places[0]] = np.array(first.basis)
    both[first.basis.shape[0] :, places[1]] = np.array(second.basis)

    def encode(x: mx.array) -> Stored:
        return first.encode(x[..., takes[0]]) + second.encode(x[..., takes[1]])

    def coordinates(stored: Stored, dtype: mx.Dtype) -> mx.array:
        cut = first.num_arrays
        found = [first.coordinates(stored[:cut], dtype), second.coordinates(stored[cut:], dtype)]
        return mx.concatenate(found, axis=-1)

    num_arrays = first.num_arrays + second.num_arrays
    return Quantizer(encode, coordinates, mx.array(both), num_arrays)

"""Every codec that a config can name, and the one that it asks for."""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from pydantic import Field

from vlmkit.cache.codec.affine import AffineCodecConfig, affine_codec, check_affine_dim
from vlmkit.cache.codec.external import external_codec
from vlmkit.cache.codec.hadamard import behind_hadamard, check_hadamard_dim
from vlmkit.cache.codec.microscaling import (
    MicroscalingConfig,
    check_microscaling_dim,
    microscaling,
)
from vlmkit.cache.codec.per_token_head import (
    PerTokenHeadConfig,
    check_per_token_head_dim,
    per_token_head,
)
from vlmkit.cache.codec.turboquant import TurboQuantConfig, check_dim, turboquant
from vlmkit.cache.storage import Codec, plain
from vlmkit.declare.configbase import StageConfig
from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError


class PlainConfig(StageConfig):
    """Keep a tensor as it was computed."""

    kind: Literal["plain"] = "plain"


Rounding = Annotated[
    AffineCodecConfig | MicroscalingConfig | PerTokenHeadConfig | TurboQuantConfig | External,
    Field(discriminator="kind"),
]


class HadamardConfig(StageConfig):
    """Rotate by a Hadamard matrix, which spreads outlier channels, then store by any codec."""

    kind: Literal["hadamard"] = "hadamard"
    codec: Rounding = Field(
        AffineCodecConfig(bits=4), description="How what is rotated is stored: a codec."
    )


CodecConfig = Annotated[
    PlainConfig
    | AffineCodecConfig
    | MicroscalingConfig
    | PerTokenHeadConfig
    | TurboQuantConfig
    | HadamardConfig
    | External,
    Field(discriminator="kind"),
]


def build_codec(config: CodecConfig) -> Codec:
    """Build the codec that a config asks for.

    Raises:
        VlmkitError: a third party's codec cannot be made.

    Example:
        >>> build_codec(HadamardConfig(codec={"kind": "mxfp4"})).quantizes
        True
    """
    match config:
        case PlainConfig():
            return plain
        case AffineCodecConfig():
            return affine_codec(config.bits, config.group_size)
        case MicroscalingConfig():
            return microscaling(config.kind)
        case PerTokenHeadConfig():
            return per_token_head(config.dtype)
        case TurboQuantConfig():
            return turboquant(config)
        case HadamardConfig():
            return behind_hadamard(build_codec(config.codec))
        case External():
            return external_codec(config)
        case _:
            assert_never(config)


def check_codec(config: CodecConfig, dim: int) -> None:
    """Raise VlmkitError, its path the key, unless the codec works for vectors of ``dim`` channels.

    >>> check_codec(HadamardConfig(codec=AffineCodecConfig(group_size=64)), 32)
    Traceback (most recent call last):
    vlmkit.errors.VlmkitError: codec.group_size: 64 does not divide head_dim 32; use group_size 32
    """
    match config:
        case AffineCodecConfig():
            check_affine_dim(config.group_size, dim)
        case MicroscalingConfig():
            check_microscaling_dim(config.kind, dim)
        case PerTokenHeadConfig():
            check_per_token_head_dim(config.dtype, dim)
        case TurboQuantConfig():
            check_dim(config, dim)
        case HadamardConfig():
            check_hadamard_dim(dim)
            try:
                check_codec(config.codec, dim)
            except VlmkitError as error:
                path = ("codec", *(error.path or ()))
                raise VlmkitError(f"codec.{error}", path=path) from error
        case PlainConfig() | External():  # of one's own codec the first tokens tell
            pass
        case _:
            assert_never(config)

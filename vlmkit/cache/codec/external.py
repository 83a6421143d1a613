"""A third party's codec, held to the shapes that caches rely on."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from vlmkit.cache.storage import Codec, Stored
from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError

GROUP = "vlmkit.codec"


def external_codec(config: External) -> Codec:
    """Make the codec that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a
    :class:`vlmkit.cache.Codec`. Its ``encode`` gets [B, H_kv, S, D], also with S = 0, and gives a
    tuple of arrays [B, H_kv, S, *]: slots are written and moved one by one. Its ``decode`` gives
    them back in the dtype that is asked for. Both are checked, at no wait for the device.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; while running,
            arrays of another shape or dtype.

    Example:
        >>> codec = external_codec(External(factory="experiments.own_codec:ternary"))
        >>> [x.shape for x in codec.encode(mx.ones((1, 2, 3, 64)))]
        [(1, 2, 3, 4), (1, 2, 3, 1)]
    """
    codec = make_external(config, group=GROUP, result=Codec, home="vlmkit.cache")
    where = f"external: codec of factory {config.factory!r}"

    def encode(x: mx.array) -> Stored:
        stored: Any = codec.encode(x)
        if not isinstance(stored, tuple) or not stored:
            raise VlmkitError(
                f"{where}: encode gave a {type(stored).__name__}; it must be a tuple of arrays"
            )
        for index, part in enumerate(stored):
            if not isinstance(part, mx.array) or part.ndim != 4 or part.shape[:3] != x.shape[:3]:
                raise VlmkitError(
                    f"{where}: encode gave {_show(part)} at place {index} for {list(x.shape)}; "
                    f"every array must be [{', '.join(map(str, x.shape[:3]))}, ...]"
                )
        return stored

    def decode(stored: Stored, dtype: mx.Dtype) -> mx.array:
        found: Any = codec.decode(stored, dtype)
        shape = stored[0].shape[:3]
        if (
            not isinstance(found, mx.array)
            or found.ndim != 4
            or found.shape[:3] != shape
            or (found.dtype != dtype)
        ):
            wanted = ", ".join(map(str, shape))
            name = str(dtype).removeprefix("mlx.core.")
            raise VlmkitError(
                f"{where}: decode gave {_show(found)}; it must be {name} [{wanted}, head_dim]"
            )
        return found

    return Codec(encode, decode, quantizes=codec.quantizes)


def _show(value: object) -> str:
    if not isinstance(value, mx.array):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('mlx.core.')} {list(value.shape)}"

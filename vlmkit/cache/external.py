"""A third party's kind of KV cache, held to the rules that batches rely on."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from vlmkit.contracts.interface import CacheKind, Held, KVSpec, Pytree
from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError

GROUP = "vlmkit.cache"


def external(config: External) -> CacheKind:
    """Make the kind of cache that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a
    ``vlmkit.contracts.interface.CacheKind``; :func:`vlmkit.cache.cache_kind` composes one from a
    layout and a storage. Every leaf of its states must be an array ``[B, ...]``, ``attend`` must
    give what it was asked in the shape and dtype of the queries, and ``hold`` a ``Held``: all are
    checked, at no wait for the device.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; while running,
            a state, an attention output or a count of another shape.

    Example:
        >>> kind = external(External(factory="experiments.own_cache:half", config={}))
        >>> kind.hold(KVSpec(1, 4, 4), mx.float32, 10).key_bytes
        80
    """
    kind = make_external(config, group=GROUP, result=CacheKind)
    return _checked(kind, f"external: cache {kind.name!r} of factory {config.factory!r}", config)


def _checked(kind: CacheKind, where: str, config: External) -> CacheKind:
    if not isinstance(kind.name, str) or not isinstance(kind.settings, Hashable):
        raise _error(f"{where}: its name must be a text, and its settings must have a hash")

    def init(batch: int, spec: KVSpec, dtype: mx.Dtype) -> Pytree:
        return _check_state(kind.init(batch, spec, dtype), batch, where)

    def append(state: Pytree, keys: mx.array, values: mx.array, plan: Pytree) -> Pytree:
        return _check_state(kind.append(state, keys, values, plan), keys.shape[0], where)

    def attend(state: Pytree, queries: mx.array, plan: Pytree, scale: float) -> mx.array:
        output = kind.attend(state, queries, plan, scale)
        is_array = isinstance(output, mx.array) and output.ndim == 4
        if not is_array or (output.shape[:3], output.dtype) != (queries.shape[:3], queries.dtype):
            raise _error(
                f"{where}: attend gave {_show(output)} for queries {_show(queries)}; it must be "
                "[B, H, L, value_dim] in their dtype"
            )
        return output

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        held: Any = kind.hold(spec, dtype, seen)
        if not isinstance(held, Held) or not 0 <= held.num_tokens <= seen:
            raise _error(
                f"{where}: hold gave {held!r:.80} for {seen} tokens; it must be a Held of 0 to "
                f"{seen} tokens"
            )
        return held

    def windowed(window: int) -> CacheKind:
        assert kind.windowed is not None
        made: Any = kind.windowed(window)
        if not isinstance(made, CacheKind):
            raise _error(f"{where}: windowed gave a {type(made).__name__}, not a CacheKind")
        return _checked(made, where, config)

    return kind._replace(
        init=init,
        append=append,
        attend=attend,
        hold=hold,
        keeps_all=False,  # what its states are is its own affair
        windowed=None if kind.windowed is None else windowed,
        reading=None,  # what it reads is checked, so it reads its own way
    )


def _check_state(state: Pytree, num_rows: int, where: str) -> Pytree:
    leaves: Any = tree_flatten(state)
    for path, leaf in leaves:
        if not isinstance(leaf, mx.array) or leaf.ndim == 0 or leaf.shape[0] != num_rows:
            name = f"state.{path}" if path else "the state"
            raise _error(
                f"{where}: {name} is {_show(leaf)}; every leaf needs one entry per row, "
                f"[{num_rows}, ...]"
            )
    return state


def _error(message: str) -> VlmkitError:
    return VlmkitError(message, path=("cache",))


def _show(value: object) -> str:
    if not isinstance(value, mx.array):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('mlx.core.')} {list(value.shape)}"

"""What mlx-lm's architectures are given as caches: views of our states, for one call.

An attention layer gets an object that appends to our keys and values and hands out its mask; a
recurrent layer gets an ``ArraysCache`` of mlx-lm that holds our arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    KVSpec,
    LayerSpec,
    Pytree,
    RecurrentSpec,
    Span,
    StateArray,
)
from vlmkit.errors import VlmkitError
from vlmkit.models.lm_build import find_culprit

Call = Callable[[nn.Module, mx.array, Sequence[Any]], mx.array]
"""(model, ids [B, L], caches) -> hidden state [B, L, *]"""

_NUM_ROWS, _NUM_TOKENS = 3, 2


class KVView:
    """One attention layer's state, as an mlx-lm cache."""

    def __init__(
        self, kind: CacheKind, state: Pytree, plan: Pytree, span: Span, spec: KVSpec
    ) -> None:
        self.kind, self.layer_state, self.plan, self.spec = kind, state, plan, spec
        self.num_rows, equal = len(span.starts), len(set(span.starts)) == 1
        self.offset: int | mx.array = span.starts[0] if equal else mx.array(span.starts, mx.int32)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.layer_state = self.kind.append(self.layer_state, keys, values, self.plan)
        self.offset = self.offset + keys.shape[2]
        all_keys, all_values, _ = self.kind.fetch(self.layer_state, self.plan, keys.dtype)
        return all_keys, all_values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | None:
        # The mask is part of what a kind fetches, and a mask is asked for before there are keys.
        # Zeros stand for them; as nobody reads them, they are never computed. The window is the
        # kind's own: probing has seen that it is the one asked for.
        spec = self.spec
        keys, values = (
            mx.zeros((self.num_rows, spec.num_kv_heads, length, dim))
            for dim in (spec.key_dim, spec.value_dim)
        )
        state = self.kind.append(self.layer_state, keys, values, self.plan)
        return self.kind.fetch(state, self.plan, keys.dtype)[2]


def recurrent_view(state: Sequence[mx.array], span: Span) -> Any:
    """Return one recurrent layer's arrays as mlx-lm's ``ArraysCache``.

    Rows before their first token have no arrays there, as some architectures treat a first token
    in a way of its own. Lengths are given where there is padding. The rows are either all before
    their first token or none is.
    """
    from mlx_lm.models.cache import ArraysCache

    view: Any = ArraysCache(size=len(state))
    if span.starts[0] > 0:
        view.cache = list(state)
    if min(span.lengths) < span.width:
        view.lengths = mx.array(span.lengths, mx.int32)  # counted down in place: one per layer
    return view


def read_back(view: Any, spec: RecurrentSpec) -> tuple[mx.array, ...]:
    """Return the arrays that a call has left in a recurrent layer's view."""
    return tuple(
        x if array.dtype is None else x.astype(array.dtype)
        for x, array in zip(view.cache, spec.arrays, strict=True)
    )


def select(cache: Cache, rows: Sequence[int]) -> Cache:
    """Return a cache of these rows, in this order."""
    pairs = zip(cache.kinds, cache.layers, strict=True)
    layers = tuple(kind.select(layer, rows, cache.lengths) for kind, layer in pairs)
    return Cache(cache.kinds, layers, tuple(cache.lengths[row] for row in rows))


def join(caches: Sequence[Cache]) -> Cache:
    """Return one cache with the rows of parts of another."""
    kinds = caches[0].kinds
    states = zip(*(cache.layers for cache in caches), strict=True)
    seen = [cache.lengths for cache in caches]
    layers = tuple(kind.join(parts, seen) for kind, parts in zip(kinds, states, strict=True))
    return Cache(kinds, layers, tuple(n for cache in caches for n in cache.lengths))


class Probed(NamedTuple):
    """What a model's graph says of it."""

    specs: tuple[LayerSpec, ...]  # one per cache that the architecture asks for
    width: int  # of the hidden state
    dtype: mx.Dtype  # of the hidden state


class UnsupportedError(Exception):
    """Why our caches cannot hold what an architecture keeps."""


class KVProbe:
    """Stands in for an mlx-lm cache and notes what an attention layer would store."""

    def __init__(self, window: int | None) -> None:
        self.offset, self.window = 0, window
        self.shapes: list[tuple[int, int, int, int]] = []
        self.windows: set[int | None] = {window}
        self.is_shared = False

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.shapes.append((keys.shape[1], keys.shape[3], values.shape[1], values.shape[3]))
        return keys, values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> None:
        if window_size is not None:
            self.windows.add(window_size)

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        self.is_shared = True
        raise LookupError("a layer reads the keys and values of another")

    def spec(self) -> KVSpec:
        if self.windows != {self.window}:
            asked = " and ".join(str(size or "no") for size in sorted(self.windows, key=_or_zero))
            raise UnsupportedError(f"one layer is asked for windows of different sizes ({asked})")
        if self.window is not None and self.window < 1:
            raise UnsupportedError(f"its sliding window is {self.window}")
        if len(self.shapes) != 1:
            raise UnsupportedError(
                f"a layer stores keys and values {len(self.shapes)} times per pass"
            )
        key_heads, key_dim, value_heads, value_dim = self.shapes[0]
        if key_heads != value_heads:
            raise UnsupportedError(
                f"a layer has {key_heads} heads of keys and {value_heads} of values"
            )
        return KVSpec(key_heads, key_dim, value_dim, self.window)


def _or_zero(size: int | None) -> int:
    return size or 0


def probe(lm: nn.Module, config: Mapping[str, Any], call: Call) -> Probed:
    """Find out what each layer stores, from the graph of a call that is never computed.

    Args:
        lm: the mlx-lm model.
        config: the contents of its config.json.
        call: runs its decoder.

    Raises:
        VlmkitError: the architecture keeps what our caches cannot hold, or cannot run.
    """
    from mlx_lm.models.cache import make_prompt_cache

    model_type = str(config["model_type"])
    probes: list[Any] = []
    try:
        probes = [_probe_of(cache) for cache in make_prompt_cache(lm)]
        hidden = call(lm, mx.zeros((_NUM_ROWS, _NUM_TOKENS), mx.int32), probes)
        specs: list[LayerSpec] = [_spec_of(one) for one in probes]
        if any(isinstance(spec, RecurrentSpec) for spec in specs):
            specs = _settled(lm, call, probes, specs)
    except UnsupportedError as error:
        raise _refuse(model_type, str(error)) from None
    except Exception as error:  # anything: the architectures check little themselves
        if any(isinstance(one, KVProbe) and one.is_shared for one in probes):
            raise _refuse(model_type, "its layers share keys and values") from None
        refused = _refuse(model_type, f"it asks more of a cache ({reason(error)})")
        raise find_culprit(error, config) or refused from error
    return Probed(tuple(specs), hidden.shape[-1], hidden.dtype)


def _probe_of(cache: Any) -> Any:
    from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

    kind = type(cache)
    if kind is KVCache:
        return KVProbe(None)
    if kind is ArraysCache:
        return ArraysCache(size=len(cache.cache))
    if kind is not RotatingKVCache:
        raise UnsupportedError(f"it keeps {kind.__name__}")
    if type(cache.max_size) is not int:
        raise UnsupportedError(f"its sliding window is {cache.max_size!r:.40}")
    if cache.keep:
        raise UnsupportedError(f"its sliding window keeps the first {cache.keep} tokens")
    return KVProbe(cache.max_size)


def _spec_of(one: Any) -> LayerSpec:
    if isinstance(one, KVProbe):
        return one.spec()
    if any(x is None for x in one.cache):
        raise UnsupportedError("a recurrent layer leaves an array of its cache empty")
    if any(x.shape[0] != _NUM_ROWS for x in one.cache):
        raise UnsupportedError("a recurrent layer keeps arrays that are not per row")
    return RecurrentSpec(
        tuple(StateArray(f"array_{n}", x.shape[1:], x.dtype) for n, x in enumerate(one.cache))
    )


def _settled(
    lm: nn.Module, call: Call, probes: Sequence[Any], specs: Sequence[LayerSpec]
) -> list[LayerSpec]:
    """Return the specs after one more token: shapes have to stay, a dtype may settle."""
    following = [KVProbe(one.window) if isinstance(one, KVProbe) else one for one in probes]
    call(lm, mx.zeros((_NUM_ROWS, 1), mx.int32), following)
    settled = [_spec_of(one) for one in following]
    for before, after in zip(specs, settled, strict=True):
        if _shapes(before) != _shapes(after):
            raise UnsupportedError("a recurrent layer's arrays change their size with the tokens")
    return settled


def _shapes(spec: LayerSpec) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in spec.arrays) if isinstance(spec, RecurrentSpec) else ()


def _refuse(model_type: str, said: str) -> VlmkitError:
    return VlmkitError(
        f"config.json: text model {model_type!r} is not supported: {said}; supported are mlx-lm "
        "architectures whose layers keep keys and values, of every token or of a sliding window, "
        "or recurrent arrays"
    )

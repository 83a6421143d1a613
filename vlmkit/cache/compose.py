"""One cache kind from a slot layout and a storage: two choices that don't know of each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention, matmul_attention, product_attention
from vlmkit.backend.codes import reads_codes
from vlmkit.cache.layout import Layout, Plan, dense_layout
from vlmkit.cache.storage import Codec, Storage, Stored
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, Span


class KVState(NamedTuple):
    """Keys and values of one layer."""

    keys: Stored  # each [B, H_kv, S, *]
    values: Stored  # each [B, H_kv, S, *]
    ends: mx.array  # int32 [B]: tokens seen per row


def cache_kind(
    name: str,
    layout: Layout,
    storage: Storage,
    *,
    settings: Hashable = (),
    windowed: Callable[[int], CacheKind] | None = None,
    attention: Attention = matmul_attention,
    check: Callable[[KVSpec], None] | None = None,
) -> CacheKind:
    """Compose a cache kind.

    Args:
        name: what reports call it.
        layout: which slot a token takes and what a query sees.
        storage: how the content of a slot is stored.
        settings: what else tells this kind from others of its name.
        windowed: the kind of layers with a sliding window of a number of tokens.
        attention: how queries read keys and values.
        check: raises VlmkitError where the storage cannot work for a layer; None: it always can.
    """

    def init(batch: int, spec: KVSpec, dtype: mx.Dtype) -> KVState:
        shape = (batch, spec.num_kv_heads, 0)
        keys, values = (mx.zeros((*shape, n), dtype) for n in (spec.key_dim, spec.value_dim))
        ends = mx.zeros((batch,), mx.int32)
        return KVState(storage.keys.encode(keys), storage.values.encode(values), ends)

    def plan(state: KVState, span: Span) -> Plan:
        return layout.plan(num_slots(state), span)

    def append(state: KVState, keys: mx.array, values: mx.array, plan: Plan) -> KVState:
        state = _resize(layout, state, plan.num_slots)
        return KVState(
            _write(state.keys, storage.keys.encode(keys), plan.slots),
            _write(state.values, storage.values.encode(values), plan.slots),
            plan.ends,
        )

    def fetch(
        state: KVState, plan: Plan, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        keys, values = _used(state, plan)
        return storage.keys.decode(keys, dtype), storage.values.decode(values, dtype), plan.mask

    def attend(state: KVState, queries: mx.array, plan: Plan, scale: float) -> mx.array:
        return read(attention, storage, queries, *_used(state, plan), plan.mask, scale)

    def trim(state: KVState, seen: Sequence[int], kept: Sequence[int]) -> KVState:
        layout.check_trim(seen, kept)
        return state._replace(ends=mx.array(list(kept), mx.int32))

    return CacheKind(
        name=name,
        settings=settings,
        init=init,
        plan=plan,
        append=append,
        attend=attend,
        fetch=fetch,
        select=_select,
        join=partial(_join, layout),
        trim=trim,
        num_bytes=_num_bytes,
        hold=_holder(layout, storage, init, check),
        windowed=windowed,
        reading=partial(
            _reading, name, layout, storage, settings=settings, windowed=windowed, check=check
        ),
        keeps_all=layout is dense_layout,
    )


def _reading(
    name: str, layout: Layout, storage: Storage, attention: Attention, **other: Any
) -> CacheKind:
    return cache_kind(name, layout, storage, attention=attention, **other)


def read(
    attention: Attention,
    storage: Storage,
    queries: mx.array,
    keys: Stored,
    values: Stored,
    mask: mx.array | None,
    scale: float,
) -> mx.array:
    """Attend to what is stored: as it is where that is fast, else each tensor in its frame."""
    queries_per_head = queries.shape[1] * queries.shape[2] // keys[0].shape[1]
    key_products, value_products = storage.keys.products, storage.values.products
    as_they_are = reads_codes(queries_per_head, queries.dtype)
    if key_products is not None and value_products is not None and as_they_are:
        return product_attention(
            queries,
            lambda folded: key_products.scores(folded, keys),
            lambda weights: value_products.mixed(weights, values),
            mask,
            scale,
            num_kv_heads=keys[0].shape[1],
        )
    dtype, key_frame, value_frame = queries.dtype, storage.keys.frame, storage.values.frame
    if key_frame is not None:
        queries = (queries @ key_frame.basis(keys).T).astype(dtype)
    output = attention(
        queries,
        _found(storage.keys, keys, dtype),
        _found(storage.values, values, dtype),
        mask,
        scale,
    )
    return output if value_frame is None else (output @ value_frame.basis(values)).astype(dtype)


def _found(codec: Codec, stored: Stored, dtype: mx.Dtype) -> mx.array:
    frame = codec.frame
    return codec.decode(stored, dtype) if frame is None else frame.coordinates(stored, dtype)


def _used(state: KVState, plan: Plan) -> tuple[Stored, Stored]:
    keys, values = (
        tuple(x[:, :, : plan.num_used] for x in stored) for stored in (state.keys, state.values)
    )
    return keys, values


def _holder(
    layout: Layout,
    storage: Storage,
    init: Callable[[int, KVSpec, mx.Dtype], KVState],
    check: Callable[[KVSpec], None] | None,
) -> Callable[[KVSpec, mx.Dtype, int], Held]:
    @cache
    def token_bytes(spec: KVSpec, dtype: mx.Dtype) -> tuple[int, int]:
        if check is not None:
            check(spec)
        state = init(1, spec, dtype)
        keys, values = (_empty_like(stored, 1) for stored in (state.keys, state.values))
        return sum(x.nbytes for x in keys), sum(x.nbytes for x in values)

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        key_bytes, value_bytes = token_bytes(spec, dtype)
        first, last = layout.held(seen)
        held = first + last
        quantized = held if storage.quantizes else 0
        return Held(held, held * key_bytes, held * value_bytes, first, quantized)

    return hold


def num_slots(state: KVState) -> int:
    """Return the number of slots per row that the state's buffers have."""
    return state.keys[0].shape[2]


def _resize(layout: Layout, state: KVState, wanted: int) -> KVState:
    have = num_slots(state)
    if have == wanted:
        return state
    if have == 0:
        keys, values = (_empty_like(stored, wanted) for stored in (state.keys, state.values))
        return KVState(keys, values, state.ends)
    moves = layout.moves(state.ends, have, wanted)[:, None, :, None]
    keys, values = (
        tuple(mx.take_along_axis(x, moves, axis=2) for x in stored)
        for stored in (state.keys, state.values)
    )
    return KVState(keys, values, state.ends)


def _empty_like(stored: Stored, wanted: int) -> Stored:
    return tuple(mx.zeros((*x.shape[:2], wanted, x.shape[3]), x.dtype) for x in stored)


def _write(stored: Stored, new: Stored, slots: mx.array) -> Stored:
    if slots.ndim == 1:
        return tuple(
            mx.slice_update(x, y.astype(x.dtype), slots, axes=[2])
            for x, y in zip(stored, new, strict=True)
        )
    return tuple(
        mx.put_along_axis(x, slots, y.astype(x.dtype), axis=2)
        for x, y in zip(stored, new, strict=True)
    )


def _select(state: KVState, rows: Sequence[int], seen: Sequence[int]) -> KVState:
    index = mx.array(list(rows), mx.int32)
    keys, values = (tuple(x[index] for x in stored) for stored in (state.keys, state.values))
    return KVState(keys, values, state.ends[index])


def _join(layout: Layout, states: Sequence[KVState], seen: Sequence[Sequence[int]]) -> KVState:
    slots = max(num_slots(state) for state in states)
    resized = [_resize(layout, state, slots) for state in states]
    return KVState(
        _concatenate([state.keys for state in resized]),
        _concatenate([state.values for state in resized]),
        mx.concatenate([state.ends for state in resized]),
    )


def _concatenate(parts: Sequence[Stored]) -> Stored:
    return tuple(mx.concatenate(list(arrays), axis=0) for arrays in zip(*parts, strict=True))


def _num_bytes(state: KVState) -> int:
    return sum(x.nbytes for x in (*state.keys, *state.values, state.ends))

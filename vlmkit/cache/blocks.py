"""A cache kind that stores whole blocks of tokens by a codec, and the rest of them as computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention, matmul_attention
from vlmkit.cache.block_plan import BlockPlan, plan_blocks
from vlmkit.cache.storage import Codec, Storage, Stored
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, Span
from vlmkit.errors import VlmkitError


class BlockState(NamedTuple):
    """Keys and values of one layer: N blocks as stored, W recent tokens as computed."""

    keys: Stored  # each [B, H_kv, N, *, *]
    values: Stored  # each [B, H_kv, N, *, *]
    recent_keys: mx.array  # [B, H_kv, W, D]
    recent_values: mx.array  # [B, H_kv, W, D_v]
    bases: mx.array  # int32 [B]: the number of the first recent token, where a block begins
    ends: mx.array  # int32 [B]: tokens seen per row


def block_kind(
    name: str,
    storage: Storage,
    block_size: int,
    *,
    settings: Hashable = (),
    windowed: Callable[[int], CacheKind] | None = None,
    attention: Attention = matmul_attention,
) -> CacheKind:
    """Compose a cache kind whose codecs take blocks of T tokens, [B, H_kv, N, T, D].

    Blocks lie one after another in a row, from its first token on. A query sees its own block as
    computed and every block before as stored, wherever the prompt was cut.

    Args:
        name: what reports call it.
        storage: how a block is stored.
        block_size: T.
        settings: what else tells this kind from others of its name.
        windowed: the kind of layers with a sliding window of a number of tokens.
        attention: how queries read keys and values.
    """

    blocks = _Blocks(name, storage, block_size)
    return CacheKind(
        name=name,
        settings=settings,
        init=partial(_init, blocks),
        plan=partial(_plan, blocks),
        append=partial(_append, blocks),
        attend=partial(_attend, blocks, attention),
        fetch=partial(_fetch, blocks),
        select=_select,
        join=_join,
        trim=partial(_trim, blocks),
        num_bytes=_num_bytes,
        hold=partial(_hold, blocks),
        windowed=windowed,
        reading=partial(_reading, name, storage, block_size, settings=settings, windowed=windowed),
    )


class _Blocks(NamedTuple):
    """What the functions of one kind share."""

    name: str
    storage: Storage
    size: int


def _reading(
    name: str, storage: Storage, block_size: int, attention: Attention, **other: Any
) -> CacheKind:
    return block_kind(name, storage, block_size, attention=attention, **other)


def _init(blocks: _Blocks, batch: int, spec: KVSpec, dtype: mx.Dtype) -> BlockState:
    recent = [
        mx.zeros((batch, spec.num_kv_heads, 0, dim), dtype)
        for dim in (spec.key_dim, spec.value_dim)
    ]
    # One block is encoded for the shapes of what is stored; none of it is kept.
    keys, values = (
        tuple(x[:, :, :0] for x in codec.encode(_empty_block(x, blocks.size)))
        for codec, x in zip(blocks.storage, recent, strict=True)
    )
    zeros = mx.zeros((batch,), mx.int32)
    return BlockState(keys, values, recent[0], recent[1], zeros, zeros)


def _plan(blocks: _Blocks, state: BlockState, span: Span) -> BlockPlan:
    return plan_blocks(state.keys[0].shape[2], span, blocks.size)


def _append(
    blocks: _Blocks, state: BlockState, keys: mx.array, values: mx.array, plan: BlockPlan
) -> BlockState:
    recent = [
        _recent(old, new, state.bases, plan)
        for old, new in ((state.recent_keys, keys), (state.recent_values, values))
    ]
    stored = [
        _complete(codec, _grown(own, plan.num_blocks), x, plan, blocks.size)
        for codec, own, x in zip(blocks.storage, (state.keys, state.values), recent, strict=True)
    ]
    return BlockState(stored[0], stored[1], recent[0], recent[1], plan.bases, plan.ends)


def _fetch(
    blocks: _Blocks, state: BlockState, plan: BlockPlan, dtype: mx.Dtype
) -> tuple[mx.array, mx.array, mx.array | None]:
    keys, values = (
        mx.concatenate([_tokens(codec.decode(own, dtype)), x.astype(dtype)], axis=2)
        for codec, own, x in _sides(blocks.storage, state, plan)
    )
    return keys, values, plan.mask


def _attend(
    blocks: _Blocks,
    attention: Attention,
    state: BlockState,
    queries: mx.array,
    plan: BlockPlan,
    scale: float,
) -> mx.array:
    dtype = queries.dtype
    (keys, key_basis), (values, value_basis) = (
        _framed(codec, own, x, dtype) for codec, own, x in _sides(blocks.storage, state, plan)
    )
    if key_basis is not None:
        queries = (queries @ key_basis.T).astype(dtype)
    output = attention(queries, keys, values, plan.mask, scale)
    return output if value_basis is None else (output @ value_basis).astype(dtype)


def _hold(blocks: _Blocks, spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
    in_blocks = seen - seen % blocks.size
    key_bytes, value_bytes = (
        round(in_blocks * stored + (seen - in_blocks) * plain)
        for stored, plain in _token_bytes(blocks, spec, dtype)
    )
    return Held(seen, key_bytes, value_bytes, 0, in_blocks)


@lru_cache(maxsize=64)
def _token_bytes(
    blocks: _Blocks, spec: KVSpec, dtype: mx.Dtype
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of keys and of values: the bytes of a token in a block, and as computed."""
    keys, values = (
        _sizes(codec, mx.zeros((1, spec.num_kv_heads, 1, blocks.size, dim), dtype))
        for codec, dim in zip(blocks.storage, (spec.key_dim, spec.value_dim), strict=True)
    )
    return keys, values


def _sizes(codec: Codec, block: mx.array) -> tuple[float, float]:
    stored = sum(x.nbytes for x in codec.encode(block))
    return stored / block.shape[3], block.nbytes / block.shape[3]


def _trim(
    blocks: _Blocks, state: BlockState, seen: Sequence[int], kept: Sequence[int]
) -> BlockState:
    size = blocks.size
    for before, after in zip(seen, kept, strict=True):
        if after % size and after // size != before // size:
            raise VlmkitError(
                f"cache: {blocks.name} has stored its first {before - before % size} tokens in "
                f"blocks of {size}, so it cannot go back to {after} of {before}; keep the earlier "
                "state, or use a cache of kind dense",
                path=("cache",),
            )
    return state._replace(ends=mx.array(list(kept), mx.int32))


def _empty_block(x: mx.array, block_size: int) -> mx.array:
    return mx.zeros((*x.shape[:2], 1, block_size, x.shape[3]), x.dtype)


def _recent(old: mx.array, new: mx.array, bases: mx.array, plan: BlockPlan) -> mx.array:
    """The tokens from each row's ``plan.bases`` on: what is left of the old ones, and the new."""
    place = mx.arange(plan.width, dtype=mx.int32)[None, None, :, None]
    num_old = (plan.starts - plan.bases)[:, None, None, None]  # fewer than a block
    from_old = place + (plan.bases - bases)[:, None, None, None]
    both = mx.concatenate([old, new], axis=2)
    index = mx.where(place < num_old, from_old, place - num_old + old.shape[2])
    return mx.take_along_axis(both, mx.clip(index, 0, both.shape[2] - 1), axis=2)


def _complete(
    codec: Codec, stored: Stored, recent: mx.array, plan: BlockPlan, block_size: int
) -> Stored:
    """Store the blocks that are whole now."""
    if plan.num_complete == 0:
        return stored
    whole = recent[:, :, : plan.num_complete * block_size]
    blocks = whole.reshape(*whole.shape[:2], plan.num_complete, block_size, whole.shape[3])
    first = (plan.bases // block_size)[:, None]
    place = mx.arange(stored[0].shape[2], dtype=mx.int32)
    last = (plan.ends // block_size)[:, None]
    is_new = ((place >= first) & (place < last))[:, None, :, None, None]
    index = mx.clip(place - first, 0, plan.num_complete - 1)[:, None, :, None, None]
    return tuple(
        mx.where(is_new, mx.take_along_axis(new, index, axis=2), old)
        for old, new in zip(stored, codec.encode(blocks), strict=True)
    )


def _grown(stored: Stored, num_blocks: int) -> Stored:
    missing = num_blocks - stored[0].shape[2]
    if missing == 0:
        return stored
    return tuple(mx.pad(x, [(0, 0), (0, 0), (0, missing), (0, 0), (0, 0)]) for x in stored)


def _sides(
    storage: Storage, state: BlockState, plan: BlockPlan
) -> list[tuple[Codec, Stored, mx.array]]:
    recent = [x[:, :, : plan.num_recent] for x in (state.recent_keys, state.recent_values)]
    used = [tuple(x[:, :, : plan.num_used] for x in own) for own in (state.keys, state.values)]
    return [(codec, own, x) for codec, own, x in zip(storage, used, recent, strict=True)]


def _framed(
    codec: Codec, stored: Stored, recent: mx.array, dtype: mx.Dtype
) -> tuple[mx.array, mx.array | None]:
    """All tokens in the codec's frame, and the frame's basis, which is orthogonal."""
    if codec.frame is None:
        found = _tokens(codec.decode(stored, dtype))
        return mx.concatenate([found, recent.astype(dtype)], axis=2), None
    basis = codec.frame.basis(stored)
    turned = (recent @ basis.T).astype(dtype)
    found = _tokens(codec.frame.coordinates(stored, dtype))
    return mx.concatenate([found, turned], axis=2), basis


def _tokens(blocks: mx.array) -> mx.array:
    return blocks.flatten(2, 3)


def _select(state: BlockState, rows: Sequence[int], seen: Sequence[int]) -> BlockState:
    index = mx.array(list(rows), mx.int32)
    keys, values = (tuple(x[index] for x in stored) for stored in (state.keys, state.values))
    return BlockState(keys, values, *(x[index] for x in state[2:]))


def _join(states: Sequence[BlockState], seen: Sequence[Sequence[int]]) -> BlockState:
    num_blocks = max(state.keys[0].shape[2] for state in states)
    width = max(state.recent_keys.shape[2] for state in states)
    keys, values = (
        tuple(
            mx.concatenate(list(arrays), axis=0)
            for arrays in zip(*(_grown(stored, num_blocks) for stored in side), strict=True)
        )
        for side in zip(*((state.keys, state.values) for state in states), strict=True)
    )
    recent = [
        mx.concatenate(
            [mx.pad(x, [(0, 0), (0, 0), (0, width - x.shape[2]), (0, 0)]) for x in side], axis=0
        )
        for side in zip(*((s.recent_keys, s.recent_values) for s in states), strict=True)
    ]
    bases, ends = (
        mx.concatenate(list(x)) for x in zip(*((s.bases, s.ends) for s in states), strict=True)
    )
    return BlockState(keys, values, recent[0], recent[1], bases, ends)


def _num_bytes(state: BlockState) -> int:
    return sum(x.nbytes for x in (*state.keys, *state.values, *state[2:]))

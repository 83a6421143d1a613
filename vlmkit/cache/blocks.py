"""A cache kind that stores whole blocks of tokens by a codec, and the rest of them as computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention, matmul_attention
from vlmkit.cache.layout import GROWTH, row_ends, token_numbers
from vlmkit.cache.storage import Codec, Storage, Stored
from vlmkit.errors import VlmkitError
from vlmkit.interface import CacheKind, Held, KVSpec, Span


class BlockState(NamedTuple):
    """Keys and values of one layer: N blocks as stored, W recent tokens as computed."""

    keys: Stored  # each [B, H_kv, N, *, *]
    values: Stored  # each [B, H_kv, N, *, *]
    recent_keys: mx.array  # [B, H_kv, W, D]
    recent_values: mx.array  # [B, H_kv, W, D_v]
    bases: mx.array  # int32 [B]: the number of the first recent token, where a block begins
    ends: mx.array  # int32 [B]: tokens seen per row


class BlockPlan(NamedTuple):
    """What all layers of one kind share in one forward pass."""

    num_blocks: int  # N while this pass runs
    num_used: int  # blocks that attention looks at
    num_complete: int  # blocks that this pass completes, at most, in a row
    bases: mx.array  # int32 [B]
    starts: mx.array  # int32 [B]
    width: int  # W
    num_recent: int  # recent tokens that attention looks at
    mask: mx.array | None  # bool [B, 1, L, num_used * T + num_recent]; None = all is visible
    ends: mx.array  # int32 [B]


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

    def init(batch: int, spec: KVSpec, dtype: mx.Dtype) -> BlockState:
        recent = [
            mx.zeros((batch, spec.num_kv_heads, 0, dim), dtype)
            for dim in (spec.key_dim, spec.value_dim)
        ]
        # One block is encoded for the shapes of what is stored; none of it is kept.
        keys, values = (
            tuple(x[:, :, :0] for x in codec.encode(_blocks_like(x, block_size)))
            for codec, x in zip(storage, recent, strict=True)
        )
        zeros = mx.zeros((batch,), mx.int32)
        return BlockState(keys, values, recent[0], recent[1], zeros, zeros)

    def plan(state: BlockState, span: Span) -> BlockPlan:
        return _plan(state.keys[0].shape[2], span, block_size)

    def append(state: BlockState, keys: mx.array, values: mx.array, plan: BlockPlan) -> BlockState:
        recent = [
            _recent(old, new, state.bases, plan, block_size)
            for old, new in ((state.recent_keys, keys), (state.recent_values, values))
        ]
        stored = [
            _complete(codec, _grown(own, plan.num_blocks), x, plan, block_size)
            for codec, own, x in zip(storage, (state.keys, state.values), recent, strict=True)
        ]
        return BlockState(stored[0], stored[1], recent[0], recent[1], plan.bases, plan.ends)

    def fetch(
        state: BlockState, plan: BlockPlan, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        keys, values = (
            mx.concatenate([_tokens(codec.decode(own, dtype)), x.astype(dtype)], axis=2)
            for codec, own, x in _sides(storage, state, plan)
        )
        return keys, values, plan.mask

    def attend(state: BlockState, queries: mx.array, plan: BlockPlan, scale: float) -> mx.array:
        dtype = queries.dtype
        (keys, key_basis), (values, value_basis) = (
            _framed(codec, own, x, dtype) for codec, own, x in _sides(storage, state, plan)
        )
        if key_basis is not None:
            queries = (queries @ key_basis.T).astype(dtype)
        output = attention(queries, keys, values, plan.mask, scale)
        return output if value_basis is None else (output @ value_basis).astype(dtype)

    @cache
    def token_bytes(spec: KVSpec, dtype: mx.Dtype) -> tuple[tuple[float, float], ...]:
        """Of keys and of values: the bytes of a token in a block, and as computed."""
        found = []
        for codec, dim in zip(storage, (spec.key_dim, spec.value_dim), strict=True):
            block = mx.zeros((1, spec.num_kv_heads, 1, block_size, dim), dtype)
            stored = sum(x.nbytes for x in codec.encode(block))
            found.append((stored / block_size, block.nbytes / block_size))
        return tuple(found)

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        in_blocks = seen - seen % block_size
        sizes = [
            round(in_blocks * stored + (seen - in_blocks) * plain)
            for stored, plain in token_bytes(spec, dtype)
        ]
        return Held(seen, sizes[0], sizes[1], 0, in_blocks)

    def trim(state: BlockState, seen: Sequence[int], kept: Sequence[int]) -> BlockState:
        for before, after in zip(seen, kept, strict=True):
            if after % block_size and after // block_size != before // block_size:
                raise VlmkitError(
                    f"cache: {name} has stored its first {before - before % block_size} tokens in "
                    f"blocks of {block_size}, so it cannot go back to {after} of {before}; keep "
                    "the earlier state, or use a cache of kind dense",
                    path=("cache",),
                )
        return state._replace(ends=mx.array(list(kept), mx.int32))

    def reading(other: Attention) -> CacheKind:
        return block_kind(
            name,
            storage,
            block_size,
            settings=settings,
            windowed=windowed,
            attention=other,
        )

    return CacheKind(
        name=name,
        settings=settings,
        init=init,
        plan=plan,
        append=append,
        attend=attend,
        fetch=fetch,
        select=_select,
        join=_join,
        trim=trim,
        num_bytes=_num_bytes,
        hold=hold,
        windowed=windowed,
        reading=reading,
    )


def _blocks_like(x: mx.array, block_size: int) -> mx.array:
    return mx.zeros((*x.shape[:2], 1, block_size, x.shape[3]), x.dtype)


def _plan(num_blocks: int, span: Span, block_size: int) -> BlockPlan:
    full = [end // block_size for end in span.ends]
    before = [start // block_size for start in span.starts]
    if max(full) > num_blocks:
        step = max(GROWTH // block_size, 1)
        num_blocks = -(-max(full) // step) * step
    num_used = max(max(end - 1, 0) // block_size for end in span.ends)
    bases = mx.array([block_size * first for first in before], mx.int32)
    width = block_size - 1 + span.width
    num_recent, mask = width, None
    if span.width == 1 and len(set(span.starts)) == 1:
        num_recent = span.starts[0] % block_size + 1
    else:
        mask = _mask(span, bases, num_used * block_size, width, block_size)
    return BlockPlan(
        num_blocks,
        num_used,
        max(after - first for after, first in zip(full, before, strict=True)),
        bases,
        mx.array(span.starts, mx.int32),
        width,
        num_recent,
        mask,
        row_ends(span),
    )


def _mask(
    span: Span, bases: mx.array, num_stored: int, num_recent: int, block_size: int
) -> mx.array:
    """What query i sees: of the stored tokens those before its block, of the recent ones its block.

    So every query sees itself, padding too.
    """
    queries = token_numbers(span)[:, None, :, None]
    boundary = queries // block_size * block_size
    stored = mx.arange(num_stored, dtype=mx.int32) < boundary
    recent = bases[:, None, None, None] + mx.arange(num_recent, dtype=mx.int32)
    in_block = (recent >= boundary) & (recent <= queries)
    return mx.concatenate([stored, in_block], axis=-1)


def _recent(
    old: mx.array, new: mx.array, bases: mx.array, plan: BlockPlan, block_size: int
) -> mx.array:
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

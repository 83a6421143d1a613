"""Rows that begin alike hold one copy of their beginning, and each its own rest.

A kind of cache that keeps every token (``CacheKind.keeps_all``) is wrapped: its states stay as they
are until a row is selected twice. Then the tokens seen so far become a prefix, one row of the
wrapped kind's state, and what the rows add goes into another state of that kind, one row each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention
from vlmkit.backend.prefixed_attention import PrefixedAttention
from vlmkit.cache.compose import KVState
from vlmkit.cache.layout import Plan, round_up
from vlmkit.cache.prefixes import (
    SharedState,
    join_shared,
    select_shared,
    take_rows,
    trim_shared,
    unshared,
)
from vlmkit.contracts.interface import CacheKind, Pytree, Span

MIN_SAVED = 256
"""Tokens that sharing has to save: below it, two short products take longer than one."""


class Group(NamedTuple):
    """The rows that share a prefix."""

    prefix: int | None
    rows: tuple[int, ...]


class SharedPlan(NamedTuple):
    """What all layers share in one forward pass."""

    own: Plan  # of the tokens behind the prefixes
    span: Span  # of whole rows
    groups: tuple[Group, ...]
    back: mx.array | None  # int32 [B]: the place of each row among the groups' rows; None: its own


def sharing(
    kind: CacheKind,
    attention: Attention,
    prefixed: PrefixedAttention,
    *,
    min_saved: int = MIN_SAVED,
) -> CacheKind:
    """Let the rows of a kind of cache share what they begin with.

    Args:
        kind: keeps every token (``keeps_all``).
        attention: how the queries of rows that share nothing read them beside others that do.
        prefixed: how those of rows that share a prefix do.
        min_saved: tokens that sharing has to save when a row is selected several times; with fewer,
            rows are copied.

    Example:
        >>> from vlmkit.backend.attention import matmul_attention
        >>> from vlmkit.backend.prefixed_attention import prefixed_attention
        >>> from vlmkit.cache.dense import DenseConfig, dense
        >>> from vlmkit.contracts.interface import KVSpec
        >>> kind = sharing(dense(DenseConfig()), matmul_attention, prefixed_attention)
        >>> state = kind.init(1, KVSpec(1, key_dim=4, value_dim=4), mx.float32)
        >>> plan = kind.plan(state, Span(starts=(0,), lengths=(500,), width=500))
        >>> state = kind.append(state, mx.ones((1, 1, 500, 4)), mx.ones((1, 1, 500, 4)), plan)
        >>> rows = kind.select(state, (0,) * 16, (500,))
        >>> kind.num_bytes(rows) - kind.num_bytes(state)
        64
    """

    def plan(state: Pytree, span: Span) -> Pytree:
        return kind.plan(state, span) if isinstance(state, KVState) else _plan(kind, state, span)

    def append(state: Pytree, keys: mx.array, values: mx.array, plan: Pytree) -> Pytree:
        if isinstance(state, KVState):
            return kind.append(state, keys, values, plan)
        return state._replace(own=kind.append(state.own, keys, values, plan.own))

    def attend(state: Pytree, queries: mx.array, plan: Pytree, scale: float) -> mx.array:
        if isinstance(state, KVState):
            return kind.attend(state, queries, plan, scale)
        return _attend(kind, attention, prefixed, state, queries, plan, scale)

    def fetch(
        state: Pytree, plan: Pytree, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        if isinstance(state, KVState):
            return kind.fetch(state, plan, dtype)
        return _fetch(kind, state, plan, dtype)

    def select(state: Pytree, rows: Sequence[int], seen: Sequence[int]) -> Pytree:
        if isinstance(state, KVState):
            if all((count - 1) * seen[row] < min_saved for row, count in Counter(rows).items()):
                return kind.select(state, rows, seen)
            state = SharedState((), (None,) * len(seen), state)
        return select_shared(kind, state, rows, seen, min_saved)

    def join(states: Sequence[Pytree], seen: Sequence[Sequence[int]]) -> Pytree:
        if all(isinstance(state, KVState) for state in states):
            return kind.join(states, seen)
        return join_shared(kind, states, seen)

    def trim(state: Pytree, seen: Sequence[int], kept: Sequence[int]) -> Pytree:
        if isinstance(state, KVState):
            return kind.trim(state, seen, kept)
        return trim_shared(kind, state, seen, kept)

    return kind._replace(
        plan=plan,
        append=append,
        attend=attend,
        fetch=fetch,
        select=select,
        join=join,
        trim=trim,
        num_bytes=partial(_num_bytes, kind),
    )


def _num_bytes(kind: CacheKind, state: Pytree) -> int:
    if isinstance(state, KVState):
        return kind.num_bytes(state)
    parts = [state.own, *(prefix.state for prefix in state.prefixes)]
    return sum(map(kind.num_bytes, parts))


def _plan(kind: CacheKind, state: SharedState, span: Span) -> SharedPlan:
    starts = tuple(start - own for start, own in zip(span.starts, state.starts, strict=True))
    rows: dict[int | None, list[int]] = {}
    for row, place in enumerate(state.places):
        rows.setdefault(place, []).append(row)
    groups = tuple(Group(place, tuple(members)) for place, members in rows.items())
    order = [row for group in groups for row in group.rows]
    back = None
    if order != sorted(order):
        back = mx.array(sorted(range(len(order)), key=order.__getitem__), mx.int32)
    own: Plan = kind.plan(state.own, span._replace(starts=starts))
    return SharedPlan(own, span, groups, back)


def _fetch(
    kind: CacheKind, state: SharedState, plan: SharedPlan, dtype: mx.Dtype
) -> tuple[mx.array, mx.array, mx.array | None]:
    slots = round_up(max(plan.span.starts) + plan.span.width)
    whole = unshared(kind, state, plan.span.ends, slots)
    return kind.fetch(whole, kind.plan(whole, plan.span), dtype)


def _attend(
    kind: CacheKind,
    attention: Attention,
    prefixed: PrefixedAttention,
    state: SharedState,
    queries: mx.array,
    plan: SharedPlan,
    scale: float,
) -> mx.array:
    dtype = queries.dtype
    keys, values, mask = kind.fetch(state.own, plan.own, dtype)
    outputs = []
    for group in plan.groups:
        q, k, v = (take_rows(x, group.rows) for x in (queries, keys, values))
        own = mask if mask is None or mask.shape[0] == 1 else take_rows(mask, group.rows)
        if group.prefix is None:
            outputs.append(attention(q, k, v, own, scale))
            continue
        prefix = state.prefixes[group.prefix]
        whole = Plan(prefix.length, prefix.length, plan.own.slots, None, plan.own.ends)
        prefix_keys, prefix_values, _ = kind.fetch(prefix.state, whole, dtype)
        outputs.append(prefixed(q, prefix_keys, prefix_values, k, v, own, scale))
    output = outputs[0] if len(outputs) == 1 else mx.concatenate(outputs)
    return output if plan.back is None else output[plan.back]

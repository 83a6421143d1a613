"""A cache kind that stores every token by a codec and keeps the recent ones as computed, too."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention, matmul_attention
from vlmkit.cache.compose import KVState, cache_kind, num_slots
from vlmkit.cache.layout import Plan, dense_layout, token_numbers
from vlmkit.cache.rotating import held_tokens, rotating_layout, windowed_layout
from vlmkit.cache.storage import Storage, Stored, plain
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, Span
from vlmkit.errors import VlmkitError


class ResidualState(NamedTuple):
    """Keys and values of one layer, twice: by the codecs, and the recent ones as computed."""

    stored: KVState
    recent: KVState  # token j in slot j mod (its number of slots)

    @property
    def keys(self) -> Stored:
        """Arrays of the keys, each [B, H_kv, S, *]."""
        return (*self.stored.keys, *self.recent.keys)

    @property
    def values(self) -> Stored:
        """Arrays of the values, each [B, H_kv, S, *]."""
        return (*self.stored.values, *self.recent.values)

    @property
    def ends(self) -> mx.array:
        """Tokens seen per row: int32 [B]."""
        return self.stored.ends


class ResidualPlan(NamedTuple):
    """What all layers of one kind share in one forward pass."""

    stored: Plan
    recent: Plan
    mask: mx.array | None  # bool [B, 1, L, stored and recent slots in use]; None = all is visible

    @property
    def num_used(self) -> int:
        """Slots that attention looks at."""
        return self.stored.num_used + self.recent.num_used


class Window(NamedTuple):
    """Which tokens a query sees as computed; see :func:`residual_kind`."""

    recent: int  # R >= 0
    start: int = 0  # N >= 0
    max_size: int | None = None  # tokens held per row; None: all
    keep: int = 0  # of these, the row's first ones


def residual_kind(
    name: str,
    storage: Storage,
    window: Window,
    *,
    settings: Hashable = (),
    windowed: Callable[[int], CacheKind] | None = None,
    attention: Attention = matmul_attention,
    check: Callable[[KVSpec], None] | None = None,
) -> CacheKind:
    """Compose a cache kind in which query i sees token j as stored iff i >= N and j <= i - R.

    All other tokens that it sees it sees as computed: the last R (itself one of them), and a query
    before token N all. That depends on i and j alone, so it is the same however a prompt is cut.
    One softmax goes over both. Recent tokens are held twice; a row that has seen no more than N
    tokens holds all of them twice.

    Args:
        name: what reports call it.
        storage: how tokens are stored.
        window: R, N, and how many tokens are held at all.
        settings: what else tells this kind from others of its name.
        windowed: the kind of layers with a sliding window of a number of tokens.
        attention: how queries read keys and values.
        check: raises VlmkitError where the storage cannot work for a layer; None: it always can.
    """
    layout = dense_layout
    if window.max_size is not None:
        layout = rotating_layout(window.max_size, window.keep)
    inner = cache_kind(name, layout, storage, check=check)
    full = cache_kind(name, windowed_layout(_most_recent(window)), Storage(plain, plain))

    parts = _Parts(window, inner, full)

    def reading(other: Attention) -> CacheKind:
        return residual_kind(
            name,
            storage,
            window,
            settings=settings,
            windowed=windowed,
            attention=other,
            check=check,
        )

    return CacheKind(
        name=name,
        settings=settings,
        init=partial(_init, parts),
        plan=partial(_plan, window),
        append=partial(_append, parts),
        attend=partial(_attend, parts, attention),
        fetch=partial(_fetch, parts),
        select=partial(_select, parts),
        join=partial(_join, parts),
        trim=partial(_trim, parts),
        num_bytes=partial(_num_bytes, parts),
        hold=_holder(window, inner, full),
        windowed=windowed,
        reading=reading,
    )


class _Parts(NamedTuple):
    window: Window
    inner: CacheKind  # of all tokens, by the codecs
    full: CacheKind  # of the recent ones, as computed


def _init(parts: _Parts, batch: int, spec: KVSpec, dtype: mx.Dtype) -> ResidualState:
    return ResidualState(parts.inner.init(batch, spec, dtype), parts.full.init(batch, spec, dtype))


def _append(
    parts: _Parts, state: ResidualState, keys: mx.array, values: mx.array, plan: ResidualPlan
) -> ResidualState:
    return ResidualState(
        parts.inner.append(state.stored, keys, values, plan.stored),
        parts.full.append(state.recent, keys, values, plan.recent),
    )


def _fetch(
    parts: _Parts, state: ResidualState, plan: ResidualPlan, dtype: mx.Dtype
) -> tuple[mx.array, mx.array, mx.array | None]:
    sides = (
        (parts.inner, state.stored, plan.stored),
        (parts.full, state.recent, plan.recent),
    )
    found = [kind.fetch(own, of, dtype) for kind, own, of in sides if of.num_used]
    keys = mx.concatenate([part[0] for part in found], axis=2)
    values = mx.concatenate([part[1] for part in found], axis=2)
    return keys, values, plan.mask


def _attend(
    parts: _Parts,
    attention: Attention,
    state: ResidualState,
    queries: mx.array,
    plan: ResidualPlan,
    scale: float,
) -> mx.array:
    keys, values, mask = _fetch(parts, state, plan, queries.dtype)
    return attention(queries, keys, values, mask, scale)


def _select(
    parts: _Parts, state: ResidualState, rows: Sequence[int], seen: Sequence[int]
) -> ResidualState:
    return ResidualState(
        parts.inner.select(state.stored, rows, seen), parts.full.select(state.recent, rows, seen)
    )


def _join(
    parts: _Parts, states: Sequence[ResidualState], seen: Sequence[Sequence[int]]
) -> ResidualState:
    return ResidualState(
        parts.inner.join([state.stored for state in states], seen),
        parts.full.join([state.recent for state in states], seen),
    )


def _num_bytes(parts: _Parts, state: ResidualState) -> int:
    return parts.inner.num_bytes(state.stored) + parts.full.num_bytes(state.recent)


def _most_recent(window: Window) -> int:
    """The most tokens that a query before token N, or any later one, needs as computed."""
    most = max(window.recent, window.start, 1)
    return most if window.max_size is None else min(most, window.max_size)


def _plan(window: Window, state: ResidualState, span: Span) -> ResidualPlan:
    layout = dense_layout
    if window.max_size is not None:
        layout = rotating_layout(window.max_size, window.keep)
    stored = layout.plan(num_slots(state.stored), span)
    started = min(span.starts) >= window.start
    size = max(window.recent, 1) if started else _most_recent(window)
    recent = windowed_layout(size).plan(num_slots(state.recent), span)
    if started and window.recent == 0:
        recent = recent._replace(num_used=0, mask=None)
    query = span.starts[0]
    one_query = span.width == 1 and len(set(span.starts)) == 1
    if one_query and recent.mask is None and stored.mask is None:
        quantized = max(query - window.recent + 1, 0) if started else 0
        if quantized == 0 or window.max_size is None or query < window.max_size:
            # Slots follow the order of the tokens: those that are seen as stored come first.
            return ResidualPlan(stored._replace(num_used=quantized), recent, None)
    return ResidualPlan(stored, recent, _mask(window, stored, recent, span))


def _mask(window: Window, stored: Plan, recent: Plan, span: Span) -> mx.array:
    numbers = token_numbers(span)
    ends = numbers[:, -1] + 1  # padding is written as well
    query = numbers[:, None, :, None]
    last_stored = mx.where(query < window.start, -1, query - window.recent)
    keep = 0 if window.max_size is None else window.keep
    token = held_tokens(ends, stored.num_slots, keep)[:, None, None, : stored.num_used]
    as_stored = (token >= 0) & (token <= last_stored)
    if stored.mask is not None:
        as_stored = as_stored & stored.mask
    token = held_tokens(ends, recent.num_slots, 0)[:, None, None, : recent.num_used]
    as_computed = (token > last_stored) & (token >= 0) & (token <= query)
    if window.max_size is not None:
        in_window = query - token < window.max_size - window.keep
        as_computed = as_computed & (in_window | (token < window.keep))
    return mx.concatenate([as_stored, as_computed], axis=-1)


def _trim(
    parts: _Parts,
    state: ResidualState,
    seen: Sequence[int],
    kept: Sequence[int],
) -> ResidualState:
    window = parts.window
    for before, after in zip(seen, kept, strict=True):
        is_held = before <= max(window.recent, window.start)
        if after < before and not is_held and (window.recent or after < window.start):
            raise VlmkitError(
                f"cache: of the {before} tokens it saw it holds the last {window.recent} as "
                f"computed, so it cannot go back to {after}; keep the earlier state, or use "
                "recent 0 and start 0",
                path=("cache",),
            )
    trimmed = parts.inner.trim(state.stored, seen, kept)
    return ResidualState(trimmed, state.recent._replace(ends=trimmed.ends))


def _holder(
    window: Window, inner: CacheKind, full: CacheKind
) -> Callable[[KVSpec, mx.Dtype, int], Held]:
    @cache
    def token_bytes(spec: KVSpec, dtype: mx.Dtype) -> tuple[int, int]:
        one = full.hold(spec, dtype, 1)
        return one.key_bytes, one.value_bytes

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        held = inner.hold(spec, dtype, seen)
        # Of what the row's last query saw.
        num_full = min(seen, _most_recent(window) if seen <= window.start else window.recent)
        key_bytes, value_bytes = token_bytes(spec, dtype)
        return Held(
            held.num_tokens,
            held.key_bytes + num_full * key_bytes,
            held.value_bytes + num_full * value_bytes,
            held.num_first,
            held.num_quantized and held.num_tokens - min(num_full, held.num_tokens),
        )

    return hold

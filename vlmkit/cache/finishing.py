"""A cache kind that holds a prompt as computed, and does something to it once it is whole."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention
from vlmkit.cache.compose import KVState, cache_kind
from vlmkit.cache.layout import dense_layout
from vlmkit.cache.storage import Storage, Stored, plain
from vlmkit.contracts.interface import (
    CacheKind,
    Finishing,
    Held,
    KVSpec,
    PromptShape,
    Pytree,
    Span,
)
from vlmkit.errors import VlmkitError

Noted = tuple[mx.array, ...]
"""What an observer keeps of the queries of a prompt: arrays [B, *, n, *]."""


class Observer(NamedTuple):
    """What is noted of a prompt's queries, independent of how the prompt is cut."""

    init: Callable[[int, KVSpec], Noted]  # (batch, spec) -> nothing noted yet
    note: Callable[[Noted, mx.array, mx.array, Span, float], Noted]
    # (noted, q [B, H, L, D], all keys [B, H_kv, S, D], what the pass adds, scale) -> noted


class Running(NamedTuple):
    """One layer while its prompts run: every token as computed, and what was noted of queries."""

    full: KVState
    noted: Noted

    @property
    def keys(self) -> Stored:
        """Arrays of the keys."""
        return self.full.keys

    @property
    def values(self) -> Stored:
        """Arrays of the values."""
        return self.full.values

    @property
    def ends(self) -> mx.array:
        """Tokens seen per row: int32 [B]."""
        return self.full.ends


class Finished(NamedTuple):
    """One layer after its prompts: what is left of them and what came since, by another kind."""

    stored: Pytree  # of the kind that it goes on with, to which ``dropped`` tokens never were
    dropped: tuple[int, ...]  # tokens per row


class RunningPlan(NamedTuple):
    """A pass through prompts."""

    full: Pytree
    span: Span


class Method(NamedTuple):
    """What a finishing kind is made of."""

    name: str
    settings: Hashable
    after: CacheKind  # how it goes on after a prompt
    finish: Callable[[CacheKind, KVState, Noted, Sequence[PromptShape]], Finished]
    # (how it goes on, prompts as computed, noted of them, their shapes) -> what is left
    hold: Callable[[KVSpec, mx.Dtype, PromptShape, int], Held]  # once the prompt is finished
    windowed: Callable[[int], CacheKind]
    observer: Observer | None = None
    check: Callable[[KVSpec], None] | None = None
    in_layer: Callable[[int, int], CacheKind] | None = None


def finishing_kind(method: Method, attention: Attention | None = None) -> CacheKind:
    """Compose a cache kind that goes on as another one once the prompt of a row is whole.

    The prompt's own queries see every token as computed, so nothing depends on how it was cut.

    Args:
        method: what is noted of the prompt, what is left of it, and how it is kept.
        attention: how queries read keys and values; None: as the kinds do.
    """
    before, after = cache_kind(method.name, dense_layout, Storage(plain, plain)), method.after
    if attention is not None:
        assert before.reading is not None
        before = before.reading(attention)
        after = after if after.reading is None else after.reading(attention)
    parts = _Parts(method, before, after)

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        if method.observer is not None and spec.num_heads is None:
            raise VlmkitError(
                f"cache.kind: {method.name} chooses tokens by the queries of a layer, which this "
                "model's attention does not show; use knorm, keydiff or random",
                path=("cache", "kind"),
            )
        if method.check is not None:
            method.check(spec)
        return before.hold(spec, dtype, seen)

    return CacheKind(
        name=method.name,
        settings=method.settings,
        init=parts.init,
        plan=parts.plan,
        append=parts.append,
        attend=parts.attend,
        fetch=parts.fetch,
        select=parts.select,
        join=parts.join,
        trim=parts.trim,
        num_bytes=parts.num_bytes,
        hold=hold,
        windowed=method.windowed,
        reading=lambda other: finishing_kind(method, other),
        finishing=Finishing(
            parts.finish, method.hold, None if method.observer is None else parts.observe
        ),
        in_layer=method.in_layer,
    )


class _Parts(NamedTuple):
    """The functions of one kind, over its parts."""

    method: Method
    before: CacheKind
    after: CacheKind

    def init(self, batch: int, spec: KVSpec, dtype: mx.Dtype) -> Running:
        observer = self.method.observer
        noted = () if observer is None else observer.init(batch, spec)
        return Running(self.before.init(batch, spec, dtype), noted)

    def plan(self, state: Pytree, span: Span) -> Pytree:
        if isinstance(state, Running):
            return RunningPlan(self.before.plan(state.full, span), span)
        return self.after.plan(state.stored, span._replace(starts=_less(span.starts, state)))

    def append(self, state: Pytree, keys: mx.array, values: mx.array, plan: Pytree) -> Pytree:
        if isinstance(state, Running):
            full = self.before.append(state.full, keys, values, plan.full)
            return state._replace(full=full)
        return state._replace(stored=self.after.append(state.stored, keys, values, plan))

    def attend(self, state: Pytree, queries: mx.array, plan: Pytree, scale: float) -> mx.array:
        if isinstance(state, Running):
            return self.before.attend(state.full, queries, plan.full, scale)
        return self.after.attend(state.stored, queries, plan, scale)

    def fetch(
        self, state: Pytree, plan: Pytree, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        if isinstance(state, Running):
            return self.before.fetch(state.full, plan.full, dtype)
        return self.after.fetch(state.stored, plan, dtype)

    def observe(self, state: Pytree, queries: mx.array, plan: Pytree, scale: float) -> Pytree:
        observer = self.method.observer
        if not isinstance(state, Running) or observer is None:
            return state
        noted = observer.note(state.noted, queries, state.full.keys[0], plan.span, scale)
        return state._replace(noted=noted)

    def finish(self, state: Pytree, prompts: Sequence[PromptShape]) -> Pytree:
        assert isinstance(state, Running)
        return self.method.finish(self.after, state.full, state.noted, prompts)

    def select(self, state: Pytree, rows: Sequence[int], seen: Sequence[int]) -> Pytree:
        if isinstance(state, Running):
            index = mx.array(list(rows), mx.int32)
            noted = tuple(x[index] for x in state.noted)
            return Running(self.before.select(state.full, rows, seen), noted)
        stored = self.after.select(state.stored, rows, _less(seen, state))
        return Finished(stored, tuple(state.dropped[row] for row in rows))

    def join(self, states: Sequence[Pytree], seen: Sequence[Sequence[int]]) -> Pytree:
        if all(isinstance(state, Running) for state in states):
            noted = tuple(map(_concatenate, zip(*(s.noted for s in states), strict=True)))
            return Running(self.before.join([s.full for s in states], seen), noted)
        if any(isinstance(state, Running) for state in states):
            raise VlmkitError(
                f"caches of kind {self.method.name} can't be joined: the prompts of some are still "
                "running; finish them first"
            )
        left = [_less(one, state) for one, state in zip(seen, states, strict=True)]
        stored = self.after.join([state.stored for state in states], left)
        return Finished(stored, tuple(n for state in states for n in state.dropped))

    def trim(self, state: Pytree, seen: Sequence[int], kept: Sequence[int]) -> Pytree:
        if tuple(seen) == tuple(kept):
            return state
        if isinstance(state, Running) and self.method.observer is None:
            return Running(self.before.trim(state.full, seen, kept), ())
        what = "notes what its prompt's queries see"
        if isinstance(state, Finished):
            what = "has finished its prompt"
        raise VlmkitError(
            f"cache: {self.method.name} {what}, so it cannot take tokens back; keep the earlier "
            "state, or use a cache of kind dense",
            path=("cache",),
        )

    def num_bytes(self, state: Pytree) -> int:
        if isinstance(state, Running):
            noted = sum(x.nbytes for x in state.noted)
            return self.before.num_bytes(state.full) + noted
        return self.after.num_bytes(state.stored)


def refill(after: CacheKind, keys: mx.array, values: mx.array, counts: Sequence[int]) -> Pytree:
    """Put the first ``counts[b]`` tokens of each row into a new state of a kind."""
    batch, heads, _, key_dim = keys.shape
    spec = KVSpec(heads, key_dim, values.shape[3])
    width = max(counts)
    empty = after.init(batch, spec, keys.dtype)
    if width == 0:
        return empty
    plan = after.plan(empty, Span((0,) * batch, tuple(counts), width))
    return after.append(empty, keys[:, :, :width], values[:, :, :width], plan)


def _less(seen: Sequence[int], state: Finished) -> tuple[int, ...]:
    return tuple(n - gone for n, gone in zip(seen, state.dropped, strict=True))


def _concatenate(parts: Sequence[mx.array]) -> mx.array:
    """Join rows; an axis of tokens gets the largest size."""
    width = max(x.shape[2] for x in parts)
    padded = [
        mx.pad(x, [(0, 0), (0, 0), (0, width - x.shape[2]), *[(0, 0)] * (x.ndim - 3)])
        for x in parts
    ]
    return mx.concatenate(padded)

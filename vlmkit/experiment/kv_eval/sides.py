"""A policy in the keys alone, or in the values alone, the other half being the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import Attention
from vlmkit.contracts.interface import Cache, CacheKind, Held, KVSpec, LayerKind, Pytree, Span
from vlmkit.experiment.kv_eval.streams import NewCache


class UnlikeError(Exception):
    """Two kinds that do not hold the same tokens, so that halves of them do not fit together."""


class _Both(NamedTuple):
    """States, or plans, of two kinds side by side."""

    keys: Pytree
    values: Pytree


def from_two(keys_of: NewCache, values_of: NewCache, attention: Attention) -> NewCache:
    """Return what makes a cache whose keys are one policy's and whose values another's.

    Both policies store everything; queries see the keys of one and the values of the other.

    Args:
        keys_of: the policy of the keys.
        values_of: the policy of the values.
        attention: how queries read them.

    Returns:
        What makes the cache; a forward pass through it raises `UnlikeError` where the two do not
        hold the same tokens.
    """

    def make(batch: int) -> Cache:
        one, two = keys_of(batch), values_of(batch)
        made: dict[tuple[int, int], LayerKind] = {}
        kinds: list[LayerKind] = []
        layers: list[Pytree] = []
        states = zip(one.layers, two.layers, strict=True)
        for ours, theirs, both in zip(one.kinds, two.kinds, states, strict=True):
            if not isinstance(ours, CacheKind) or not isinstance(theirs, CacheKind):
                kinds.append(ours)
                layers.append(both[0])
                continue
            key = id(ours), id(theirs)
            if key not in made:
                made[key] = _paired(ours, theirs, attention)
            kinds.append(made[key])
            layers.append(_Both(*both))
        return Cache(tuple(kinds), tuple(layers), one.lengths)

    return make


def _paired(ours: CacheKind, theirs: CacheKind, attention: Attention) -> CacheKind:
    def init(batch: int, spec: KVSpec, dtype: mx.Dtype) -> _Both:
        return _Both(ours.init(batch, spec, dtype), theirs.init(batch, spec, dtype))

    def plan(state: _Both, span: Span) -> _Both:
        return _Both(ours.plan(state.keys, span), theirs.plan(state.values, span))

    def append(state: _Both, keys: mx.array, values: mx.array, plan: _Both) -> _Both:
        return _Both(
            ours.append(state.keys, keys, values, plan.keys),
            theirs.append(state.values, keys, values, plan.values),
        )

    def fetch(
        state: _Both, plan: _Both, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        keys, _, mask = ours.fetch(state.keys, plan.keys, dtype)
        _, values, other = theirs.fetch(state.values, plan.values, dtype)
        shapes = [None if one is None else one.shape for one in (mask, other)]
        if keys.shape[2] != values.shape[2] or shapes[0] != shapes[1]:
            raise UnlikeError
        return keys, values, mask

    def attend(state: _Both, queries: mx.array, plan: _Both, scale: float) -> mx.array:
        return attention(queries, *fetch(state, plan, queries.dtype), scale)

    def select(state: _Both, rows: Sequence[int], seen: Sequence[int]) -> _Both:
        return _Both(ours.select(state.keys, rows, seen), theirs.select(state.values, rows, seen))

    def join(states: Sequence[_Both], seen: Sequence[Sequence[int]]) -> _Both:
        return _Both(
            ours.join([state.keys for state in states], seen),
            theirs.join([state.values for state in states], seen),
        )

    def trim(state: _Both, seen: Sequence[int], kept: Sequence[int]) -> _Both:
        return _Both(ours.trim(state.keys, seen, kept), theirs.trim(state.values, seen, kept))

    def num_bytes(state: _Both) -> int:
        return ours.num_bytes(state.keys) + theirs.num_bytes(state.values)

    def hold(spec: KVSpec, dtype: mx.Dtype, seen: int) -> Held:
        keys, values = ours.hold(spec, dtype, seen), theirs.hold(spec, dtype, seen)
        return keys._replace(value_bytes=values.value_bytes)

    return CacheKind(
        name=f"{ours.name} keys, {theirs.name} values",
        settings=(ours.settings, theirs.settings),
        init=init,
        plan=plan,
        append=append,
        attend=attend,
        fetch=fetch,
        select=select,
        join=join,
        trim=trim,
        num_bytes=num_bytes,
        hold=hold,
    )

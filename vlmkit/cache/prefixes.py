"""Prefixes that rows share: taken from a row, handed on to other rows, given up again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.cache.compose import KVState, num_slots
from vlmkit.cache.layout import GROWTH, round_up
from vlmkit.cache.storage import Stored
from vlmkit.contracts.interface import CacheKind


class Prefix(NamedTuple):
    """What some rows begin with."""

    state: KVState  # one row of ``length`` tokens
    length: int


class SharedState(NamedTuple):
    """Keys and values of one layer: B rows, of which some share their first tokens."""

    prefixes: tuple[Prefix, ...]
    places: tuple[int | None, ...]  # per row, which of ``prefixes`` is its own; None: none
    own: KVState  # B rows: the tokens behind the prefix

    @property
    def starts(self) -> tuple[int, ...]:
        """Tokens per row that are in a prefix."""
        return tuple(0 if n is None else self.prefixes[n].length for n in self.places)


State = KVState | SharedState


def take_rows(x: mx.array, rows: Sequence[int]) -> mx.array:
    """Return these rows of an array; neighbours are a view."""
    first, last = rows[0], rows[-1]
    if list(rows) == list(range(first, last + 1)):
        return x if len(rows) == x.shape[0] else x[first : last + 1]
    return x[mx.array(list(rows), mx.int32)]


def select_shared(
    kind: CacheKind,
    state: SharedState,
    rows: Sequence[int],
    seen: Sequence[int],
    min_saved: int,
) -> State:
    """Select rows; what they share they go on sharing.

    A row that is taken several times becomes a prefix as a whole where that saves more tokens than
    it copies.

    Args:
        kind: of the state's parts.
        state: B rows.
        rows: which of them, in which order.
        seen: tokens per row of ``state``.
        min_saved: tokens that a new prefix has to save.
    """
    starts, repeats = state.starts, Counter(rows)
    own = [length - start for length, start in zip(seen, starts, strict=True)]
    renewed = {
        row
        for row, count in repeats.items()
        if (count - 1) * own[row] >= max(min_saved, starts[row])
    }
    if renewed:  # the buffers of the others' own tokens shrink, so a long row must leave them too
        renewed |= {row for row in repeats if state.places[row] is None and own[row] > GROWTH}
    prefixes, places = list(state.prefixes), list(state.places)
    for row in sorted(renewed):
        places[row] = len(prefixes)
        prefixes.append(Prefix(one_row(kind, state, row, seen[row]), seen[row]))
        own[row] = 0
    return _settled(
        kind,
        SharedState(
            tuple(prefixes),
            tuple(places[row] for row in rows),
            _own_rows(kind, state.own, rows, [own[row] for row in rows]),
        ),
        [seen[row] for row in rows],
    )


def join_shared(kind: CacheKind, states: Sequence[State], seen: Sequence[Sequence[int]]) -> State:
    """Put the rows of several states into one; rows of the same prefix find each other.

    Args:
        kind: of the states' parts.
        states: at least one of them shares.
        seen: tokens per row, of each state.
    """
    prefixes: dict[tuple[int, int], Prefix] = {}
    for state in states:
        if isinstance(state, SharedState):
            prefixes |= {_content(prefix): prefix for prefix in state.prefixes}
    parts = [
        _as_shared(kind, state, own, prefixes) for state, own in zip(states, seen, strict=True)
    ]
    for part in parts:
        prefixes |= {_content(prefix): prefix for prefix in part.prefixes}
    numbers = {content: number for number, content in enumerate(prefixes)}
    places = [
        None if place is None else numbers[_content(part.prefixes[place])]
        for part in parts
        for place in part.places
    ]
    own = kind.join([part.own for part in parts], seen)
    shared = SharedState(tuple(prefixes.values()), tuple(places), own)
    return _settled(kind, shared, [n for part in seen for n in part])


def trim_shared(
    kind: CacheKind, state: SharedState, seen: Sequence[int], kept: Sequence[int]
) -> State:
    """Cut rows back. Into a prefix: by a shorter view, or by a row of its own for each."""
    starts = state.starts
    cut = {n for n, start, end in zip(state.places, starts, kept, strict=True) if end < start}
    prefixes = list(state.prefixes)
    for place in cut:
        assert place is not None
        lengths = {end for n, end in zip(state.places, kept, strict=True) if n == place}
        if len(lengths) > 1 or 0 in lengths:
            return kind.trim(unshared(kind, state, seen), seen, kept)  # type: ignore[no-any-return]
        (length,) = lengths
        shorter = kind.trim(prefixes[place].state, (prefixes[place].length,), (length,))
        prefixes[place] = Prefix(shorter, length)
    state = state._replace(prefixes=tuple(prefixes))
    ends = [end - start for end, start in zip(kept, state.starts, strict=True)]
    return state._replace(own=state.own._replace(ends=mx.array(ends, mx.int32)))


def unshared(
    kind: CacheKind, state: SharedState, seen: Sequence[int], slots: int | None = None
) -> KVState:
    """Return each row with a copy of its prefix, in buffers of so many slots at least."""
    rows = [one_row(kind, state, row, length, slots) for row, length in enumerate(seen)]
    joined: KVState = rows[0] if len(rows) == 1 else kind.join(rows, [(n,) for n in seen])
    return joined


def one_row(
    kind: CacheKind, state: SharedState, row: int, length: int, slots: int | None = None
) -> KVState:
    """Return a row of this many tokens alone; a copy unless it is all that there is."""
    place, own = state.places[row], state.own
    if place is None:
        alone: KVState = own if len(state.places) == 1 else kind.select(own, (row,), (length,))
        return alone
    prefix = state.prefixes[place]
    if length == prefix.length and slots is None:
        return prefix.state
    slots = max(round_up(length), slots or 0)

    def whole(first: Stored, then: Stored) -> Stored:
        return tuple(
            _fit(mx.concatenate([x[:, :, : prefix.length], y[row : row + 1]], axis=2), slots)
            for x, y in zip(first, then, strict=True)
        )

    return KVState(
        whole(prefix.state.keys, own.keys),
        whole(prefix.state.values, own.values),
        mx.array([length], mx.int32),
    )


def _fit(x: mx.array, slots: int) -> mx.array:
    missing = slots - x.shape[2]
    return mx.pad(x, [(0, 0), (0, 0), (0, missing), (0, 0)]) if missing > 0 else x[:, :, :slots]


def _settled(kind: CacheKind, state: SharedState, seen: Sequence[int]) -> State:
    """Drop the prefixes that no row has, and all of them where none has two rows."""
    used = Counter(place for place in state.places if place is not None)
    if max(used.values(), default=0) < 2:
        return unshared(kind, state, seen)
    numbers = {place: number for number, place in enumerate(sorted(used))}
    return state._replace(
        prefixes=tuple(state.prefixes[place] for place in sorted(used)),
        places=tuple(None if place is None else numbers[place] for place in state.places),
    )


def _content(prefix: Prefix) -> tuple[int, int]:
    """What equal prefixes have in common: they are views of one array."""
    return id(prefix.state.keys[0]), prefix.length


def _as_shared(
    kind: CacheKind, state: State, seen: Sequence[int], known: Container[tuple[int, int]]
) -> SharedState:
    """Return a state as one that can share: long rows and known ones become prefixes."""
    if isinstance(state, SharedState):
        return state
    batch = len(seen)
    bare = SharedState((), (None,) * batch, state)
    is_known = batch == 1 and _content(Prefix(state, seen[0])) in known
    if max(seen) <= GROWTH and not is_known:
        return bare
    prefixes = [Prefix(one_row(kind, bare, row, length), length) for row, length in enumerate(seen)]
    own = _own_rows(kind, state, range(batch), [0] * batch)
    return SharedState(tuple(prefixes), tuple(range(batch)), own)


def _own_rows(
    kind: CacheKind, own: KVState, rows: Sequence[int], lengths: Sequence[int]
) -> KVState:
    """Select rows of the own parts, in buffers that hold these lengths."""
    slots = min(round_up(max(lengths)), num_slots(own))
    cut = KVState(
        tuple(x[:, :, :slots] for x in own.keys),
        tuple(x[:, :, :slots] for x in own.values),
        own.ends,
    )
    picked: KVState = kind.select(cut, rows, lengths)
    return picked._replace(ends=mx.array(list(lengths), mx.int32))

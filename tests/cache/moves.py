"""Rows of a cache and what went into them: moves that check what is read on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from tests.cache.kinds import CONFIGS, SHAPE, Tokens, expected, feed, kind_of, random_tokens
from vlmkit.backend.attention import matmul_attention
from vlmkit.backend.prefixed_attention import prefixed_attention
from vlmkit.cache import build_kind
from vlmkit.cache.shared import sharing
from vlmkit.contracts.interface import CacheKind, Pytree


class Rows(NamedTuple):
    """A state, and what went into each of its rows."""

    state: Pytree
    tokens: tuple[Tokens, ...]

    @property
    def seen(self) -> tuple[int, ...]:
        return tuple(one.keys.shape[1] for one in self.tokens)


def eager(name: str) -> CacheKind:
    """The kind, sharing whatever can be shared."""
    kind = build_kind(CONFIGS[name])
    if not kind.keeps_all:
        return kind_of(name)
    return sharing(kind, matmul_attention, prefixed_attention, min_saved=1)


def joined(parts: Sequence[Tokens]) -> Tokens:
    return Tokens(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def add(name: str, kind: CacheKind, rows: Rows, counts: Sequence[int], seed: int) -> Rows:
    """Feed each row some tokens, in one chunk, and check what they read."""
    new = [random_tokens(count, seed + row) for row, count in enumerate(counts)]
    state, outputs = feed(kind, rows.state, rows.seen, new, [max(counts)])
    tokens = tuple(joined(parts) for parts in zip(rows.tokens, new, strict=True))
    for start, whole, output in zip(rows.seen, tokens, outputs, strict=True):
        wanted = expected(name, whole)[:, start:]
        np.testing.assert_allclose(output, wanted, atol=5e-6, rtol=5e-6)
    return Rows(state, tokens)


def begin(name: str, kind: CacheKind, count: int, seed: int) -> Rows:
    empty = Rows(kind.init(1, SHAPE, mx.float32), (random_tokens(0, 0),))
    return add(name, kind, empty, [count], seed)


def pick(kind: CacheKind, rows: Rows, order: Sequence[int]) -> Rows:
    state = kind.select(rows.state, order, rows.seen)
    return Rows(state, tuple(rows.tokens[row] for row in order))


def append(kind: CacheKind, parts: Sequence[Rows]) -> Rows:
    state = kind.join([part.state for part in parts], [part.seen for part in parts])
    return Rows(state, tuple(one for part in parts for one in part.tokens))


def cut(kind: CacheKind, rows: Rows, kept: Sequence[int]) -> Rows:
    state = kind.trim(rows.state, rows.seen, kept)
    parts = (one.part(0, count) for one, count in zip(rows.tokens, kept, strict=True))
    return Rows(state, tuple(parts))

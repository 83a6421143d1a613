"""Where the tokens of a row lie in its buffer, and what each query may see there.

A layout is independent of how keys and values are stored. Row b's tokens are numbered from 0;
a layout says which slot a token takes, so rows never depend on one another and the padding of a
right-padded batch lands where no valid query looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.contracts.interface import Span

GROWTH = 256
"""Buffers grow in steps of this many slots."""


class Plan(NamedTuple):
    """What all layers of one kind share in one forward pass."""

    num_slots: int  # size of the buffers while this pass runs
    num_used: int  # attention looks at the slots before this one
    slots: mx.array  # int32 [1]: the first slot, rows being equal; or [B, 1, L, 1]: each slot
    mask: mx.array | None  # bool [B, 1, L, num_used], True = visible; None = all is visible
    ends: mx.array  # int32 [B]: tokens per row after this pass


class Layout(NamedTuple):
    """How tokens are laid out in the slots of a buffer."""

    plan: Callable[[int, Span], Plan]  # (slots now, what is added) -> plan
    moves: Callable[[mx.array, int, int], mx.array]
    # moves(tokens per row [B], slots now, slots wanted) -> int32 [B, wanted]: the slot to copy from
    check_trim: Callable[[Sequence[int], Sequence[int]], None]
    # (tokens seen per row, tokens to keep per row): VlmkitError where some of these are gone
    held: Callable[[int], tuple[int, int]]
    # tokens seen by a row -> how many of its first and of its last tokens a query still finds


def round_up(count: int) -> int:
    """Return the number of slots to allocate for ``count`` tokens.

    >>> round_up(1), round_up(256), round_up(257)
    (256, 256, 512)
    """
    return -(-count // GROWTH) * GROWTH


def row_ends(span: Span) -> mx.array:
    """Return the tokens per row after ``span``: int32 [B]."""
    return mx.array(span.ends, mx.int32)


def token_numbers(span: Span) -> mx.array:
    """Return the number of each new token in its row, padding counted on: int32 [B, L]."""
    return mx.array(span.starts, mx.int32)[:, None] + mx.arange(span.width, dtype=mx.int32)


def linear_plan(num_slots: int, span: Span) -> Plan:
    """Plan a pass in which token j of every row takes slot j.

    Query i sees j <= i. Padding comes after the valid tokens of its row, so causality alone
    hides it from them; it is overwritten by the tokens that follow.
    """
    used = max(span.starts) + span.width
    equal = len(set(span.starts)) == 1
    if equal and span.width == 1:
        return Plan(num_slots, used, mx.array(span.starts[:1], mx.int32), None, row_ends(span))
    numbers = token_numbers(span)[:, None, :, None]
    mask = mx.arange(used, dtype=mx.int32) <= numbers
    slots = mx.array(span.starts[:1], mx.int32) if equal else numbers
    return Plan(num_slots, used, slots, mask, row_ends(span))


def _dense_plan(num_slots: int, span: Span) -> Plan:
    needed = max(span.starts) + span.width
    return linear_plan(num_slots if needed <= num_slots else round_up(needed), span)


def _dense_moves(ends: mx.array, num_slots: int, wanted: int) -> mx.array:
    # A token never changes its slot; the new slots hold nothing yet.
    slots = mx.minimum(mx.arange(wanted, dtype=mx.int32), max(num_slots - 1, 0))
    return mx.broadcast_to(slots, (ends.shape[0], wanted))


def _keeps_all(seen: Sequence[int], kept: Sequence[int]) -> None:
    """Every prefix is still there."""


dense_layout = Layout(
    plan=_dense_plan, moves=_dense_moves, check_trim=_keeps_all, held=lambda seen: (0, seen)
)

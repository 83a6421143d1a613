"""Which blocks a pass completes, and what each query sees of them and of the tokens after them."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from vlmkit.cache.layout import GROWTH, row_ends, token_numbers
from vlmkit.contracts.interface import Span


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


def plan_blocks(num_blocks: int, span: Span, block_size: int) -> BlockPlan:
    """Plan a pass that adds ``span`` to rows with room for ``num_blocks`` blocks each."""
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

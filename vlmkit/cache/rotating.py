"""The rotating KV cache: a few first tokens and a window of the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import mlx.core as mx
from pydantic import Field, model_validator

from vlmkit.cache.compose import cache_kind
from vlmkit.cache.layout import Layout, Plan, linear_plan, round_up, row_ends, token_numbers
from vlmkit.cache.storage import Storage, plain
from vlmkit.contracts.interface import CacheKind, Span
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError


class RotatingConfig(StageConfig):
    """Keep the first ``keep`` tokens and the last ``max_size - keep``."""

    kind: Literal["rotating"] = "rotating"
    max_size: Int = Field(ge=1, description="Tokens held per row.")
    keep: Int = Field(4, ge=0, description="First tokens of a row that are never dropped.")

    @model_validator(mode="after")
    def _keep_fits(self) -> RotatingConfig:
        check_keep(self.keep, self.max_size)
        return self


def check_keep(keep: int, max_size: int) -> None:
    """Raise ValueError unless a window remains beside the kept tokens."""
    if keep >= max_size:
        raise ValueError(
            f"keep={keep} leaves no room in max_size={max_size}; keep must be less than max_size"
        )


def rotating(config: RotatingConfig) -> CacheKind:
    """Build the rotating cache: query i sees token j <= i if j < keep or i - j < max_size - keep.

    What a query sees does not depend on how the prompt was cut into chunks. A buffer has at most
    ``max_size`` slots, and ``L - 1`` more after a chunk of L tokens until the next decode step:
    the first query of a chunk needs tokens that the last one has already dropped.

    Example:
        >>> from vlmkit.contracts.interface import KVSpec
        >>> kind = rotating(RotatingConfig(max_size=4, keep=1))
        >>> state = kind.init(1, KVSpec(1, key_dim=4, value_dim=4), mx.float32)
        >>> plan = kind.plan(state, Span(starts=(0,), lengths=(6,), width=6))
        >>> state = kind.append(state, mx.ones((1, 1, 6, 4)), mx.ones((1, 1, 6, 4)), plan)
        >>> plan = kind.plan(state, Span(starts=(6,), lengths=(1,), width=1))
        >>> state = kind.append(state, mx.ones((1, 1, 1, 4)), mx.ones((1, 1, 1, 4)), plan)
        >>> kind.fetch(state, plan, mx.float32)[0].shape
        (1, 1, 4, 4)

    Reference: Xiao et al. 2023, "Efficient streaming language models with attention sinks",
    arXiv 2309.17453.
    """
    last = config.max_size - config.keep
    return cache_kind(
        config.kind,
        rotating_layout(config.max_size, config.keep),
        Storage(plain, plain),
        settings=(config.max_size, config.keep),
        windowed=lambda window: windowed(config.kind, min(window, last)),
    )


def windowed(name: str, window: int) -> CacheKind:
    """Build the cache of a layer whose queries see the last ``window`` tokens only.

    Args:
        name: the kind that the cache's config asked for.
        window: tokens that a query sees, itself included, at least 1.
    """
    layout = windowed_layout(window)
    return cache_kind(name, layout, Storage(plain, plain), settings=("window", window))


def windowed_layout(window: int) -> Layout:
    """Build the layout that holds the last ``window`` tokens, at least 1."""
    return rotating_layout(window, 0)


def rotating_layout(max_size: int, keep: int) -> Layout:
    """Build the layout: token j in slot j if j < keep, else in keep + (j - keep) mod (S - keep).

    S is the number of slots of the buffer. While no row has more than S tokens that is slot j.
    """
    return Layout(
        plan=partial(_plan, max_size=max_size, keep=keep),
        moves=partial(_moves, keep=keep),
        check_trim=partial(_check_trim, max_size=max_size),
        held=partial(_held, max_size=max_size, keep=keep),
    )


def _held(seen: int, max_size: int, keep: int) -> tuple[int, int]:
    first = min(seen, keep)
    return first, min(seen - first, max_size - keep)


def _check_trim(seen: Sequence[int], kept: Sequence[int], max_size: int) -> None:
    for before, after in zip(seen, kept, strict=True):
        if after < before and before > max_size:
            raise VlmkitError(
                f"cache: a window of {max_size} tokens has dropped tokens of the {before} it saw, "
                f"so it cannot go back to {after}; keep the earlier state or, unless the window is "
                "the model's own, use a cache of kind dense",
                path=("cache",),
            )


def _plan(num_slots: int, span: Span, max_size: int, keep: int) -> Plan:
    end = max(span.starts) + span.width
    if end <= max_size:
        # Nothing is dropped yet. Slots beyond max_size are what a longer chunk left.
        fits = min(num_slots, max_size)
        return linear_plan(fits if end <= fits else min(round_up(end), max_size), span)
    # The first query's window and all that the chunk adds have slots of their own; so has the
    # padding of a row that adds nothing, which may still be cut back.
    needed = max_size + span.width - (min(span.lengths) > 0)
    num_slots = needed if span.width == 1 else max(num_slots, needed)
    numbers = token_numbers(span)
    slots = _slot_of(numbers, num_slots, keep)
    mask = None
    if num_slots > max_size or min(span.starts) + 1 < max_size:
        held = held_tokens(numbers[:, -1] + 1, num_slots, keep)[:, None, None]
        query = numbers[:, None, :, None]
        in_window = (held < keep) | (query - held < max_size - keep)
        mask = (held >= 0) & (held <= query) & in_window
    one_slot = len(set(span.starts)) == 1 and span.width == 1
    slots = slots[0] if one_slot else slots[:, None, :, None]
    return Plan(num_slots, num_slots, slots, mask, row_ends(span))


def _slot_of(tokens: mx.array, num_slots: int, keep: int) -> mx.array:
    return mx.where(tokens < keep, tokens, keep + (tokens - keep) % max(num_slots - keep, 1))


def held_tokens(ends: mx.array, num_slots: int, keep: int) -> mx.array:
    """Return the number of the last token written to each slot, int32 [B, S]; -1 = none."""
    slots = mx.arange(num_slots, dtype=mx.int32)
    last = ends[:, None] - 1
    period = max(num_slots - keep, 1)
    turns = (last - slots) // period
    held = mx.where(slots < keep, slots, slots + turns * period)
    return mx.where((held >= slots) & (held <= last), held, -1)


def _moves(ends: mx.array, num_slots: int, wanted: int, keep: int) -> mx.array:
    # Tokens that the smaller of both buffers can't hold are out of every later query's window.
    tokens = mx.maximum(held_tokens(ends, wanted, keep), 0)
    return mx.minimum(_slot_of(tokens, num_slots, keep), num_slots - 1)

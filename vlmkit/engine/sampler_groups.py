"""Rows of one batch, each under its own sampler chain; rows with equal chains run together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from vlmkit.random import uniforms
from vlmkit.sampling import SamplerChain
from vlmkit.types import Pytree


class RowSampler(NamedTuple):
    """How the tokens of one row are drawn."""

    chain: SamplerChain
    key: Hashable  # rows with equal keys have equal chains
    seed: int
    sample: int


class SamplerGroup(NamedTuple):
    """The rows of a batch that share a chain, and the chain's state for them."""

    chain: SamplerChain
    key: Hashable
    rows: tuple[int, ...]  # indices into the batch, ascending
    state: Pytree  # leaves [len(rows), ...]


def init_groups(
    samplers: Sequence[RowSampler], prompts: Sequence[NDArray[np.int32]], vocab_size: int
) -> tuple[SamplerGroup, ...]:
    """Group rows by chain and start each chain's state from the prompts of its rows."""
    members: dict[Hashable, list[int]] = {}
    for row, sampler in enumerate(samplers):
        members.setdefault(sampler.key, []).append(row)
    return tuple(
        SamplerGroup(
            chain=samplers[rows[0]].chain,
            key=key,
            rows=tuple(rows),
            state=samplers[rows[0]].chain.init([prompts[row] for row in rows], vocab_size),
        )
        for key, rows in members.items()
    )


def select_groups(groups: Sequence[SamplerGroup], keep: Sequence[int]) -> tuple[SamplerGroup, ...]:
    """Keep the given rows of the batch (ascending); they are renumbered 0, 1, …"""
    new_index = {old: new for new, old in enumerate(keep)}
    kept = []
    for group in groups:
        local = [place for place, row in enumerate(group.rows) if row in new_index]
        if not local:
            continue
        index = mx.array(local)
        kept.append(
            group._replace(
                rows=tuple(new_index[group.rows[place]] for place in local),
                state=tree_map(lambda leaf, index=index: leaf[index], group.state),
            )
        )
    return tuple(kept)


def join_groups(
    first: Sequence[SamplerGroup], second: Sequence[SamplerGroup], offset: int
) -> tuple[SamplerGroup, ...]:
    """Append the rows of ``second``, renumbered from ``offset``, merging groups of equal chains."""
    joined = {group.key: group for group in first}
    for group in second:
        rows = tuple(row + offset for row in group.rows)
        if (earlier := joined.get(group.key)) is None:
            joined[group.key] = group._replace(rows=rows)
            continue
        state = tree_map(lambda a, b: mx.concatenate([a, b], axis=0), earlier.state, group.state)
        joined[group.key] = earlier._replace(rows=earlier.rows + rows, state=state)
    return tuple(joined.values())


def draw_tokens(
    groups: Sequence[SamplerGroup],
    logits: mx.array,
    samplers: Sequence[RowSampler],
    positions: Sequence[int],
) -> tuple[tuple[SamplerGroup, ...], mx.array]:
    """Draw one token per row.

    Args:
        groups: the sampler groups, covering every row once.
        logits: float32 ``[B, V]``.
        samplers: one per row.
        positions: how many tokens each row has generated so far; with the row's seed and sample
            number this is the counter of its random draw.

    Returns:
        The groups with their new states, and the token ids int32 ``[B]``; -1 where a row has no
        token that can be drawn.
    """
    drawn, after = [], []
    for group in groups:
        rows = logits if len(groups) == 1 else logits[mx.array(group.rows)]
        numbers = None
        if group.chain.num_random or not group.chain.is_greedy:
            streams = 1 + group.chain.num_random
            numbers = mx.array(
                [
                    uniforms(samplers[row].seed, samplers[row].sample, positions[row], streams)
                    for row in group.rows
                ]
            )
        state, token_ids = group.chain.sample(group.state, rows, numbers)
        after.append(group._replace(state=state))
        drawn.append(token_ids)
    if len(groups) == 1:
        return tuple(after), drawn[0]
    order = [row for group in groups for row in group.rows]
    return tuple(after), mx.concatenate(drawn)[mx.array(np.argsort(order))]


def update_groups(groups: Sequence[SamplerGroup], token_ids: mx.array) -> tuple[SamplerGroup, ...]:
    """Tell every chain which tokens (int32 ``[B]``) were really taken."""
    whole = len(groups) == 1
    return tuple(
        group._replace(
            state=group.chain.update(
                group.state, token_ids if whole else token_ids[mx.array(group.rows)]
            )
        )
        for group in groups
    )

"""Rows of one batch, each under its own sampler chain; rows with equal chains run together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from vlmkit.counter_rng import uniforms
from vlmkit.sampling import SamplerChain, join_states
from vlmkit.types import Pytree


class RowSampler(NamedTuple):
    """How the tokens of one row are drawn."""

    chain: SamplerChain
    key: Hashable  # rows with equal keys have equal chains, but for numbers that init puts in
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
    """Group rows by chain and start the state of each row by its own chain, from its prompt."""
    members: dict[Hashable, list[int]] = {}
    for row, sampler in enumerate(samplers):
        members.setdefault(sampler.key, []).append(row)
    return tuple(
        SamplerGroup(
            chain=samplers[rows[0]].chain,
            key=key,
            rows=tuple(rows),
            state=join_states(
                [samplers[row].chain.init([prompts[row]], vocab_size) for row in rows]
            ),
        )
        for key, rows in members.items()
    )


def select_groups(groups: Sequence[SamplerGroup], rows: Sequence[int]) -> tuple[SamplerGroup, ...]:
    """Keep these rows, in this order, as rows 0, 1, …; a row may come twice (a branch)."""
    kept = []
    for group in groups:
        place = {row: index for index, row in enumerate(group.rows)}
        new_rows = tuple(new for new, row in enumerate(rows) if row in place)
        if not new_rows:
            continue
        index = mx.array([place[rows[new]] for new in new_rows])
        state = tree_map(lambda leaf, index=index: leaf[index], group.state)
        kept.append(group._replace(rows=new_rows, state=state))
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
        state = join_states([earlier.state, group.state])
        joined[group.key] = earlier._replace(rows=earlier.rows + rows, state=state)
    return tuple(joined.values())


class Draws(NamedTuple):
    """One token per row, and the way to it."""

    groups: tuple[SamplerGroup, ...]  # with the states after the draw
    sampled: mx.array  # int32 [B]; -1 where a row has no token that can be drawn
    traces: dict[int, tuple[mx.array, ...]]  # by row: its logits [V] after each stage


def draw_tokens(
    groups: Sequence[SamplerGroup],
    logits: mx.array,
    samplers: Sequence[RowSampler],
    positions: Sequence[int],
    traced: Sequence[int] = (),
) -> Draws:
    """Draw one token per row.

    Args:
        groups: the sampler groups, covering every row once.
        logits: float32 ``[B, V]``.
        samplers: one per row.
        positions: how many tokens each row has generated so far; with the row's seed and sample
            number this is the counter of its random draw.
        traced: rows whose logits after each stage are wanted.
    """
    drawn, after = [], []
    traces: dict[int, tuple[mx.array, ...]] = {}
    for group in groups:
        rows = logits if len(groups) == 1 else logits[mx.array(group.rows)]
        numbers = _uniforms(group, samplers, positions)
        if wanted := [(place, row) for place, row in enumerate(group.rows) if row in traced]:
            stages = group.chain.trace(group.state, rows, numbers)
            traces |= {row: tuple(stage[place] for stage in stages) for place, row in wanted}
        state, token_ids = group.chain.sample(group.state, rows, numbers)
        after.append(group._replace(state=state))
        drawn.append(token_ids)
    if len(groups) == 1:
        return Draws(tuple(after), drawn[0], traces)
    order = [row for group in groups for row in group.rows]
    return Draws(tuple(after), mx.concatenate(drawn)[mx.array(np.argsort(order))], traces)


def apply_chain(
    groups: Sequence[SamplerGroup],
    logits: mx.array,
    samplers: Sequence[RowSampler],
    positions: Sequence[int],
    rows: Sequence[int],
) -> mx.array:
    """Return what the chain leaves of the logits of some rows that share one: float32 ``[N, V]``.

    Args:
        groups: the sampler groups.
        logits: float32 ``[B, V]``.
        samplers: one per row of the batch.
        positions: one per row of the batch, as in :func:`draw_tokens`.
        rows: N rows of one group.
    """
    (group,) = select_groups([group for group in groups if rows[0] in group.rows], rows)
    numbers = _uniforms(group, [samplers[row] for row in rows], [positions[row] for row in rows])
    return group.chain.apply(group.state, logits[mx.array(list(rows))], numbers)


def set_hosts(
    groups: Sequence[SamplerGroup], hosts: Sequence[Sequence[Any]]
) -> tuple[SamplerGroup, ...]:
    """Put what the host reducers of each row (``hosts``, one entry per row) say into the states."""
    return tuple(
        group._replace(
            state=group.chain.with_hosts(
                group.state,
                [
                    mx.array(np.stack([reducer.value(hosts[row][place]) for row in group.rows]))
                    for place, reducer in enumerate(group.chain.hosts)
                ],
            )
        )
        if group.chain.hosts
        else group
        for group in groups
    )


def allowed_logits(groups: Sequence[SamplerGroup], logits: mx.array) -> dict[int, mx.array]:
    """Return the logits ``[V]`` that host reducers leave, by row; rows without any are left out."""
    allowed: dict[int, mx.array] = {}
    for group in groups:
        if group.chain.hosts:
            left = group.chain.apply_hosts(group.state, logits[mx.array(group.rows)])
            allowed.update((row, left[place]) for place, row in enumerate(group.rows))
    return allowed


def _uniforms(
    group: SamplerGroup, samplers: Sequence[RowSampler], positions: Sequence[int]
) -> mx.array | None:
    """The uniform numbers of a group's rows for one draw, float32 ``[B, 1 + num_random]``."""
    if group.chain.is_greedy and not group.chain.num_random:
        return None
    streams = 1 + group.chain.num_random
    return mx.array(
        [
            uniforms(samplers[row].seed, samplers[row].sample, positions[row], streams)
            for row in group.rows
        ]
    )


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

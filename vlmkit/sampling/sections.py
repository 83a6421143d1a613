"""The sampler chains of a batch: rows that share one stand together, so each chain has a slice."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from vlmkit.contracts.interface import Pytree
from vlmkit.errors import VlmkitError
from vlmkit.numeric.counter_rng import uniforms
from vlmkit.sampling import SamplerChain, build_chain, join_states


class RowSampler(NamedTuple):
    """How the tokens of one row are drawn."""

    chain: SamplerChain
    key: Hashable  # rows with equal keys have equal chains, but for numbers that init puts in
    seed: int
    sample: int


class Section(NamedTuple):
    """Neighbouring rows that share a chain, and the chain's state for them."""

    chain: SamplerChain
    key: Hashable
    size: int  # rows
    state: Pytree  # leaves [size, ...]


Sections = tuple[Section, ...]
"""The sections of a batch, in the order of its rows; together they cover each row once."""

Failures = dict[int, Exception]
"""What a stage raised, by the row of the batch that cannot go on for it."""


def together(keys: Sequence[Hashable]) -> list[int]:
    """Return the order that brings equal keys together, each at the place of its first.

    >>> together(["b", "a", "b"])
    [0, 2, 1]
    """
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    return sorted(range(len(keys)), key=lambda place: first[keys[place]])


def init_sections(
    samplers: Sequence[RowSampler], prompts: Sequence[NDArray[np.int32]], vocab_size: int
) -> tuple[Sections, Failures]:
    """Start the state of each row by its own chain, from its prompt; equal chains stand together.

    Example:
        >>> sampler = RowSampler(build_chain([]), "plain", seed=0, sample=0)
        >>> [one.size for one in init_sections([sampler] * 3, [np.array([1])] * 3, 8)[0]]
        [3]
    """
    sections: list[Section] = []
    failures: Failures = {}
    for row, (sampler, prompt) in enumerate(zip(samplers, prompts, strict=True)):
        try:
            state = sampler.chain.init([prompt], vocab_size)
            sections.append(Section(sampler.chain, sampler.key, 1, state))
        except Exception as error:  # a stage of a third party raises what it likes
            sections.append(Section(build_chain([]), row, 1, ()))
            failures[row] = error
    merged = []
    for key, group in groupby(sections, key=lambda section: section.key):
        parts = list(group)
        state = join_states([part.state for part in parts])
        merged.append(Section(parts[0].chain, key, len(parts), state))
    return tuple(merged), failures


def slices(sections: Sections) -> list[slice]:
    """Return where the rows of each section stand in the batch."""
    if len(sections) == 1:
        return [slice(0, sections[0].size)]
    ends = accumulate((section.size for section in sections), initial=0)
    return [slice(start, stop) for start, stop in pairwise(ends)]


def select_sections(sections: Sections, rows: Sequence[int]) -> Sections:
    """Keep these rows; those of one section come together, in any order, and may come twice."""
    kept = []
    for section, place in zip(sections, slices(sections), strict=True):
        own = [row - place.start for row in rows if place.start <= row < place.stop]
        if own == list(range(section.size)):
            kept.append(section)
        elif own:
            index = mx.array(own)
            state = tree_map(lambda leaf, index=index: leaf[index], section.state)
            kept.append(section._replace(size=len(own), state=state))
    return tuple(kept)


def join_sections(first: Sections, second: Sections) -> tuple[Sections, list[int]]:
    """Merge sections of equal chains.

    Returns:
        The sections, and their rows as places in the rows of ``first`` followed by ``second``.
    """
    merged: dict[Hashable, Section] = {}
    rows: dict[Hashable, list[int]] = {}
    both = first + second
    for section, place in zip(both, slices(both), strict=True):
        if (earlier := merged.get(section.key)) is None:
            merged[section.key] = section
        else:
            merged[section.key] = earlier._replace(
                size=earlier.size + section.size,
                state=join_states([earlier.state, section.state]),
            )
        rows.setdefault(section.key, []).extend(range(place.start, place.stop))
    return tuple(merged.values()), [row for own in rows.values() for row in own]


def set_hosts(sections: Sections, hosts: Sequence[Sequence[Any]]) -> tuple[Sections, Failures]:
    """Put what the host reducers say into the states.

    Args:
        sections: of the batch.
        hosts: per row, the states of its chain's reducers.
    """
    failures: Failures = {}
    if not any(section.chain.hosts for section in sections):
        return sections, failures
    after = []
    for section, rows in zip(sections, slices(sections), strict=True):
        reducers = section.chain.hosts
        values: dict[int, list[NDArray[Any]]] = {}
        for row, own in enumerate(hosts[rows] if reducers else (), start=rows.start):
            try:
                found = [
                    np.asarray(one.value(state)) for one, state in zip(reducers, own, strict=True)
                ]
                _check_alike(found, next(iter(values.values()), found))
            except Exception as error:  # a stage of a third party raises what it likes
                failures[row] = error
            else:
                values[row] = found
        if values:
            filler = next(iter(values.values()))  # for rows that failed: nobody reads it
            by_row = [values.get(row, filler) for row in range(rows.start, rows.stop)]
            stacked = [mx.array(np.stack(column)) for column in zip(*by_row, strict=True)]
            section = section._replace(state=section.chain.with_hosts(section.state, stacked))
        after.append(section)
    return tuple(after), failures


def _check_alike(found: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> None:
    shapes, expected = ([value.shape for value in values] for values in (found, others))
    if shapes != expected:
        raise VlmkitError(
            f"a stage's host reducer gave values of shapes {shapes}, and {expected} for another "
            "row; all rows need the same"
        )


def apply_hosts(sections: Sections, logits: mx.array) -> tuple[mx.array, Failures]:
    """Return the logits ``[B, V]`` that the stages ahead of a contrast leave."""
    failures: Failures = {}
    if not any(section.chain.num_ahead for section in sections):
        return logits, failures
    parts = []
    for section, rows in zip(sections, slices(sections), strict=True):
        try:
            parts.append(section.chain.apply_hosts(section.state, logits[rows]))
        except Exception as error:  # a stage of a third party raises what it likes
            parts.append(logits[rows])
            failures |= dict.fromkeys(range(rows.start, rows.stop), error)
    return mx.concatenate(parts) if len(parts) > 1 else parts[0], failures


class Draws(NamedTuple):
    """One token per row, and the way to it."""

    sections: Sections  # with the states after the draw
    sampled: mx.array  # int32 [B]; -1 where a row has no token that can be drawn
    traces: tuple[tuple[mx.array, ...], ...]  # per row: its logits [V] after each stage, if traced
    failures: Failures


def draw_tokens(
    sections: Sections,
    logits: mx.array,
    samplers: Sequence[RowSampler],
    positions: Sequence[int],
    *,
    traced: Sequence[bool] | None = None,
    given: Sequence[int | None] | None = None,
) -> Draws:
    """Draw one token per row.

    Args:
        sections: of the batch.
        logits: float32 ``[B, V]``.
        samplers: one per row.
        positions: how many tokens each row has generated so far; with the row's seed and sample
            number this is the counter of its random draw.
        traced: per row, whether its logits after each stage are wanted; None: of no row.
        given: per row of whole sections, the token that a search gave it; None: draw one.
    """
    traced = [False] * len(samplers) if traced is None else traced
    given = [None] * len(samplers) if given is None else given
    drawn, after = [], []
    traces: list[tuple[mx.array, ...]] = []
    failures: Failures = {}
    for section, rows in zip(sections, slices(sections), strict=True):
        tokens = [token_id for token_id in given[rows] if token_id is not None]
        own_traces: list[tuple[mx.array, ...]] = [()] * section.size
        if tokens:
            token_ids = mx.array(tokens, mx.int32)
        else:
            own = logits if len(sections) == 1 else logits[rows]
            numbers = _uniforms(section, samplers[rows], positions[rows])
            try:
                own_traces = _traces(section, own, numbers, traced[rows])
                state, token_ids = section.chain.sample(section.state, own, numbers)
                section = section._replace(state=state)
            except Exception as error:  # a stage of a third party raises what it likes
                token_ids, own_traces = mx.full(section.size, -1, mx.int32), [()] * section.size
                failures |= dict.fromkeys(range(rows.start, rows.stop), error)
        after.append(section)
        drawn.append(token_ids)
        traces += own_traces
    sampled = drawn[0] if len(drawn) == 1 else mx.concatenate(drawn)
    return Draws(tuple(after), sampled, tuple(traces), failures)


def _traces(
    section: Section, logits: mx.array, numbers: mx.array | None, traced: Sequence[bool]
) -> list[tuple[mx.array, ...]]:
    stages = section.chain.trace(section.state, logits, numbers) if any(traced) else ()
    return [
        tuple(stage[row] for stage in stages) if wanted else () for row, wanted in enumerate(traced)
    ]


def run_section(
    section: Section, logits: mx.array, samplers: Sequence[RowSampler], positions: Sequence[int]
) -> tuple[Section, mx.array]:
    """Return a section after its stages, and the logits float32 ``[size, V]`` that they leave."""
    state, left = section.chain.run(section.state, logits, _uniforms(section, samplers, positions))
    return section._replace(state=state), left


def _uniforms(
    section: Section, samplers: Sequence[RowSampler], positions: Sequence[int]
) -> mx.array | None:
    """The uniform numbers of a section's rows for one draw, float32 ``[size, 1 + num_random]``."""
    if section.chain.is_greedy and not section.chain.num_random:
        return None
    streams = 1 + section.chain.num_random
    return mx.array(
        [
            uniforms(sampler.seed, sampler.sample, position, streams)
            for sampler, position in zip(samplers, positions, strict=True)
        ]
    )


def update_sections(sections: Sections, token_ids: mx.array) -> tuple[Sections, Failures]:
    """Tell every chain which tokens (int32 ``[B]``) were really taken."""
    after = []
    failures: Failures = {}
    for section, rows in zip(sections, slices(sections), strict=True):
        own = token_ids if len(sections) == 1 else token_ids[rows]
        try:
            section = section._replace(state=section.chain.update(section.state, own))
        except Exception as error:  # a stage of a third party raises what it likes
            failures |= dict.fromkeys(range(rows.start, rows.stop), error)
        after.append(section)
    return tuple(after), failures

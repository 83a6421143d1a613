"""Prefill many prompts: what they begin with alike, or what is known already, runs once.

Equal input is recognised by content ids alone (:meth:`vlmkit.contracts.inputs.Inputs.of`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import mlx.core as mx

from vlmkit.cache import finish_rows, join_rows, select_rows
from vlmkit.contracts.inputs import Inputs, num_equal, whole_media
from vlmkit.contracts.interface import Cache, DecodeState, Features, Hidden, Model, PromptShape
from vlmkit.passes.embed import encode_media
from vlmkit.passes.prefill import prefill_hidden
from vlmkit.prompts.states import join_states, select_hidden, select_state

MIN_SHARED = 8
"""A common beginning of fewer tokens is not worth a forward pass of its own."""


class Started(NamedTuple):
    """One prompt after its prefill, a value: it can be continued again and again."""

    inputs: Inputs
    state: DecodeState  # one row; it may lack the prompt's last tokens where ``hidden`` is None
    hidden: Hidden | None  # [1, hidden] of the last token; None: another token has to follow
    taps: tuple[int, ...] = ()  # the layers that ``hidden.taps`` are of


class Known(Protocol):
    """Prompts of earlier calls."""

    def find(self, inputs: Inputs, taps: tuple[int, ...]) -> tuple[Started, int] | None:
        """Return what can be continued to this prompt, cut to so many of its tokens."""

    @property
    def features(self) -> Mapping[bytes, Features]:
        """Encoded media by digest."""

    def keep_features(self, features: Mapping[bytes, Features]) -> None:
        """Take in media that were just encoded."""


class PrefillOptions(NamedTuple):
    """What all prefills of a run share."""

    new_cache: Callable[[Model, int], Cache]  # empty cache for a number of rows
    step_size: int  # tokens per forward pass


class Prefilled(NamedTuple):
    """Prompts after their prefill, one row each, in the order asked for."""

    state: DecodeState
    hidden: Hidden
    cached: tuple[int, ...]  # tokens per row that were not computed for it
    computed: tuple[float, ...]  # tokens that were; those of several rows count evenly for each


class _Start(NamedTuple):
    """How far a prompt is before its own prefill."""

    state: DecodeState | None  # one row; None: nothing yet
    length: int
    hidden: Hidden | None = None  # set: nothing is left to do


def prefill_prompts(
    model: Model,
    batch: Sequence[Inputs],
    options: PrefillOptions,
    *,
    known: Known | None = None,
    taps: tuple[int, ...] = (),
    keep_prompt: bool = False,
) -> Prefilled:
    """Prefill B prompts to their ends; equal ones, and equal beginnings, are computed once.

    Args:
        model: the model's functions.
        batch: B prompts.
        options: what all prefills share.
        known: prompts of earlier calls; None = none.
        taps: layers whose input at the last token is wanted too.
        keep_prompt: also return the final hidden states of all tokens of the first prompt; nothing
            of it is taken from ``known`` then.

    Raises:
        VlmkitError: a prompt is empty or does not fit the model, or layers cannot be tapped.
    """
    unique, places = unique_inputs(batch)
    starts = [None if known is None or keep_prompt else known.find(one, taps) for one in unique]
    found = [
        _Start(None, 0)
        if start is None
        else _Start(start[0].state, start[1], start[0].hidden if _is_whole(start, one) else None)
        for start, one in zip(starts, unique, strict=True)
    ]
    features = _encode(model, unique, [start.length for start in found], known)
    cached = [start.length for start in found]
    computed = [float(len(one.token_ids)) - n for one, n in zip(unique, cached, strict=True)]
    heads, prompt_heads = _prefill_heads(model, unique, found, features, options, keep_prompt)
    for members, state, length in heads:
        new = length - max(cached[member] for member in members)
        for place, member in enumerate(members):
            computed[member] -= length - found[member].length - new / len(members)
            found[member] = _Start(state, length)
            cached[member] = length if place else length - new
    state, hidden = _prefill_rests(
        model, unique, found, features, options, taps=taps, keep_prompt=keep_prompt
    )
    if hidden.prompt is not None:
        own = hidden.prompt[:1, : len(unique[0].token_ids) - found[0].length]
        hidden = hidden._replace(prompt=mx.concatenate([*prompt_heads, own], axis=1))
    if len(unique) < len(batch):
        state, hidden = select_state(state, places), select_hidden(hidden, places)
    return Prefilled(
        state,
        hidden,
        tuple(
            cached[place] if places.index(place) == row else len(inputs.token_ids)
            for row, (place, inputs) in enumerate(zip(places, batch, strict=True))
        ),
        tuple(computed[place] / places.count(place) for place in places),
    )


def unique_inputs(batch: Sequence[Inputs]) -> tuple[list[Inputs], list[int]]:
    """Return the different prompts among the rows, and for each row which of them is its own."""
    known: dict[bytes, int] = {}
    unique: list[Inputs] = []
    places = []
    for inputs in batch:
        key = inputs.content
        if key not in known:
            known[key] = len(unique)
            unique.append(inputs)
        places.append(known[key])
    return unique, places


def _is_whole(start: tuple[Started, int], inputs: Inputs) -> bool:
    return start[1] == len(inputs.token_ids)


def _encode(
    model: Model, unique: Sequence[Inputs], starts: Sequence[int], known: Known | None
) -> dict[bytes, Features]:
    features = encode_media(model, unique, starts, known.features if known else None)
    if known is not None:
        known.keep_features(features)
    return features


def _clusters(unique: Sequence[Inputs], found: Sequence[_Start]) -> list[tuple[list[int], int]]:
    """Prompts that begin alike beyond what is known of them, with the length of that beginning."""
    unfinished = [place for place, start in enumerate(found) if start.hidden is None]
    clusters: list[tuple[list[int], int]] = []
    # In the order of their contents, prompts stand beside those that they share most with.
    for place in sorted(unfinished, key=lambda place: unique[place].content_ids.tolist()):
        inputs = unique[place]
        own = whole_media(inputs, len(inputs.token_ids) - 1)
        if clusters:
            members, shared = clusters[-1]
            common = min(num_equal(unique[members[0]], inputs), shared, own)
            common, joined = whole_media(inputs, common), [*members, place]
            if _num_saved(joined, common, found) > _num_saved(members, shared, found):
                clusters[-1] = (joined, common)
                continue
        clusters.append(([place], own))
    return [
        (sorted(place for place in members if found[place].length < length), length)
        for members, length in clusters
        if _num_saved(members, length, found)
    ]


def _num_saved(members: Sequence[int], length: int, found: Sequence[_Start]) -> int:
    """Tokens that are not computed if one pass runs so many tokens of all these prompts."""
    new = [length - found[place].length for place in members if found[place].length < length]
    return sum(new) - min(new) if new and min(new) >= MIN_SHARED else 0


def _prefill_heads(
    model: Model,
    unique: Sequence[Inputs],
    found: Sequence[_Start],
    features: Mapping[bytes, Features],
    options: PrefillOptions,
    keep_prompt: bool,
) -> tuple[list[tuple[list[int], DecodeState, int]], list[mx.array]]:
    """Run what several prompts begin with: its members, one row of state, its length."""
    heads = []
    kept: list[mx.array] = []
    for members, length in _clusters(unique, found):
        longest = max(members, key=lambda place: found[place].length)
        start = found[longest]
        embedded = model.embed([unique[longest]], features, [start.length])
        num_new = length - start.length
        head = embedded._replace(piece=embedded.piece.slice(0, num_new), lengths=(num_new,))
        state, hidden = prefill_hidden(
            model,
            head,
            _join_starts(model, [start], options),
            step_size=options.step_size,
            keep_prompt=keep_prompt,
        )
        if hidden.prompt is not None and members[0] == 0:
            kept.append(hidden.prompt)
        heads.append((members, state, length))
    return heads, kept


def _prefill_rests(
    model: Model,
    unique: Sequence[Inputs],
    found: Sequence[_Start],
    features: Mapping[bytes, Features],
    options: PrefillOptions,
    *,
    taps: tuple[int, ...],
    keep_prompt: bool,
) -> tuple[DecodeState, Hidden]:
    """Run what is left of each prompt, all at once."""
    left = [place for place, start in enumerate(found) if start.hidden is None]
    whole = [place for place, start in enumerate(found) if start.hidden is not None]
    states, outputs = list[DecodeState](), list[Hidden]()
    if left:
        embedded = model.embed(
            [unique[place] for place in left], features, [found[place].length for place in left]
        )
        state, hidden = prefill_hidden(
            model,
            embedded,
            _join_starts(model, [found[place] for place in left], options),
            step_size=options.step_size,
            taps=taps,
            keep_prompt=keep_prompt,
        )
        ends = [PromptShape.of(unique[place]) for place in left]
        state = state._replace(cache=finish_rows(state.cache, ends))
        if not whole:
            return state, hidden
        states.append(state)
        outputs.append(hidden)
    for place in whole:
        start = found[place]
        assert start.state is not None
        assert start.hidden is not None
        states.append(start.state)
        outputs.append(start.hidden)
    joined = join_states(states)
    taps_of = zip(*(output.taps for output in outputs), strict=True)
    hidden = Hidden(
        mx.concatenate([output.final for output in outputs]),
        tuple(mx.concatenate(list(layer)) for layer in taps_of),
    )
    back = [[*left, *whole].index(place) for place in range(len(unique))]
    return select_state(joined, back), select_hidden(hidden, back)


def _join_starts(model: Model, starts: Sequence[_Start], options: PrefillOptions) -> Cache:
    """One cache with what each prompt has so far."""
    if all(start.state is None for start in starts):
        return options.new_cache(model, len(starts))
    first, count = starts[0].state, len(starts)
    if first is not None and all(start.state is first for start in starts):
        return select_rows(first.cache, (0,) * count) if count > 1 else first.cache
    return join_rows(
        [
            options.new_cache(model, 1) if start.state is None else start.state.cache
            for start in starts
        ]
    )

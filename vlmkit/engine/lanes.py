"""The models' decode states for the rows of a batch, and one set of logits per row out of them.

A lane is one model with one forward pass per step. A row has a place in the first lane for its own
stream; where its config contrasts it with other streams, these have places behind it, or in the
lane of a second model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from vlmkit.cache import join_rows, select_rows
from vlmkit.decode import decode_hidden
from vlmkit.errors import VlmkitError
from vlmkit.inputs import Inputs
from vlmkit.interface import Cache, DecodeState, Hidden, Model
from vlmkit.prefill import prefill_branches, prefill_hidden
from vlmkit.stages import Contrast


class RowContrast(NamedTuple):
    """What a row's logits are contrasted with."""

    method: Contrast
    key: Hashable  # rows with equal keys are combined together
    inputs: tuple[Inputs, ...]  # the prompts of its other streams; none for early layers
    model: Model | None = None  # runs the other streams; None: the row's own model


class Lane(NamedTuple):
    """One model's decode state."""

    model: Model
    state: DecodeState
    owners: tuple[int, ...]  # the row that each place belongs to, ascending


class Contrasted(NamedTuple):
    """N rows that one method combines."""

    rows: tuple[int, ...]
    method: Contrast
    own: mx.array  # float32 [N, V]
    others: mx.array  # float32 [N, S, V]
    num_tokens: mx.array  # int32 [N]


class RowLogits(NamedTuple):
    """What the model says of each row's next token."""

    own: mx.array  # float32 [B, V], of the row's own stream
    combined: mx.array  # float32 [B, V], after contrast; the same object where there is none
    hidden: mx.array  # [B, hidden], of the row's own stream
    prompt: mx.array | None = None  # [1, T, hidden]: all tokens' hidden states, where asked for
    contrasted: tuple[Contrasted, ...] = ()  # what ``combined`` was made of, until rows are moved


class LaneOptions(NamedTuple):
    """What the prefill of all lanes shares."""

    new_cache: Callable[[Model, int], Cache]  # empty cache for a number of rows
    prefill_step_size: int


def start_lanes(
    model: Model,
    inputs: Sequence[Inputs],
    contrasts: Sequence[RowContrast | None],
    options: LaneOptions,
    *,
    keep_prompt: bool = False,
) -> tuple[tuple[Lane, ...], RowLogits, list[int]]:
    """Prefill rows together; equal prompts, and what a row's own streams share, are computed once.

    Args:
        model: the model of the rows' own streams.
        inputs: one prompt per row. A row with other streams on the same model comes alone.
        contrasts: one per row.
        options: what all lanes share.
        keep_prompt: also return the hidden states of the prompt of a row that comes alone.

    Returns:
        The lanes, the logits of the rows' first tokens, and for each row the first row with an
        equal prompt.
    """
    early = early_layers(contrasts)
    first = contrasts[0]
    places = list(range(len(inputs)))
    if first is not None and first.model is None and first.inputs:
        assert len(inputs) == 1
        streams = (inputs[0], *first.inputs)
        state, hidden = prefill_branches(
            model,
            model.embed(streams),
            lambda batch: options.new_cache(model, batch),
            branch=select_rows,
            step_size=options.prefill_step_size,
            keep_prompt=keep_prompt,
        )
        own = Lane(model, state, (0,) * len(streams))
    else:
        unique, places = _unique_inputs(inputs)
        state, hidden = prefill_hidden(
            model,
            model.embed(unique),
            options.new_cache(model, len(unique)),
            step_size=options.prefill_step_size,
            early_layers=early,
            keep_prompt=keep_prompt,
        )
        if len(unique) < len(inputs):
            index = mx.array(places)
            state = select_state(state, places)
            hidden = Hidden(hidden.final[index], tuple(layer[index] for layer in hidden.early))
        own = Lane(model, state, tuple(range(len(inputs))))
    lanes, outputs = [own], [hidden]
    for rows in _by_model(contrasts).values():
        lane, output = _start_second(rows, contrasts, options)
        lanes.append(lane)
        outputs.append(output)
    logits = _row_logits(lanes, outputs, contrasts, [0] * len(inputs))
    return tuple(lanes), logits._replace(prompt=hidden.prompt), places


def step_lanes(
    lanes: Sequence[Lane],
    token_ids: mx.array,
    contrasts: Sequence[RowContrast | None],
    num_tokens: Sequence[int],
) -> tuple[tuple[Lane, ...], RowLogits]:
    """Build the graph of one forward pass per lane.

    Args:
        lanes: the rows' states.
        token_ids: int32 [B], the token that each row takes.
        contrasts: one per row.
        num_tokens: tokens generated per row, with this one.
    """
    early = early_layers(contrasts)
    after, outputs = [], []
    for place, lane in enumerate(lanes):
        whole = lane.owners == tuple(range(len(contrasts)))
        tokens = token_ids if whole else token_ids[mx.array(lane.owners)]
        state, hidden = decode_hidden(
            lane.model, lane.state, tokens, early_layers=early if place == 0 else ()
        )
        after.append(lane._replace(state=state))
        outputs.append(hidden)
    return tuple(after), _row_logits(after, outputs, contrasts, num_tokens)


def select_lanes(lanes: Sequence[Lane], rows: Sequence[int]) -> tuple[Lane, ...]:
    """Keep these rows, in this order; a row may come twice (a branch)."""
    selected = []
    for lane in lanes:
        places = [
            (place, new)
            for new, row in enumerate(rows)
            for place, owner in enumerate(lane.owners)
            if owner == row
        ]
        if places:
            state = select_state(lane.state, [place for place, _ in places])
            selected.append(Lane(lane.model, state, tuple(new for _, new in places)))
    return tuple(selected)


def join_lanes(first: Sequence[Lane], second: Sequence[Lane], offset: int) -> tuple[Lane, ...]:
    """Append the rows of ``second``, numbered from ``offset``."""
    # A second model may be the rows' own model once more; its lane is another one.
    joined = {(place > 0, id(lane.model)): lane for place, lane in enumerate(first)}
    for place, lane in enumerate(second):
        owners = tuple(owner + offset for owner in lane.owners)
        key = place > 0, id(lane.model)
        if (earlier := joined.get(key)) is None:
            joined[key] = lane._replace(owners=owners)
            continue
        state = DecodeState(
            cache=join_rows([earlier.state.cache, lane.state.cache]),
            next_positions=earlier.state.next_positions + lane.state.next_positions,
        )
        joined[key] = Lane(lane.model, state, earlier.owners + owners)
    return tuple(joined.values())


def combine_allowed(logits: RowLogits, allowed: Mapping[int, mx.array]) -> RowLogits:
    """Combine the streams of some rows again, among the tokens that their chains allow.

    A method keeps what is plausible beside the most likely token. Where a grammar rules that token
    out, the cut is to be taken among those that are left, or it could leave none of them; so all
    streams are restricted to what the grammar allows.

    Args:
        logits: of the batch.
        allowed: by row, its own logits [V] with −inf for what its chain rules out beforehand.
    """
    rows = [logits.combined[row] for row in range(logits.combined.shape[0])]
    for part in logits.contrasted:
        if not any(row in allowed for row in part.rows):
            continue
        masked = [allowed.get(row, logits.own[row]) for row in part.rows]
        own = mx.minimum(part.own, mx.stack(masked))  # −inf where either is, else equal
        others = mx.where(own[:, None] == -mx.inf, -mx.inf, part.others)
        combined = part.method.combine(own, others, part.num_tokens)
        for place, row in enumerate(part.rows):
            rows[row] = combined[place]
    return logits._replace(combined=mx.stack(rows))


def select_logits(logits: RowLogits, rows: Sequence[int]) -> RowLogits:
    """Keep these rows, in this order."""
    index = mx.array(list(rows))
    own = logits.own[index]
    combined = own if logits.combined is logits.own else logits.combined[index]
    return RowLogits(own, combined, logits.hidden[index])


def select_state(state: DecodeState, places: Sequence[int]) -> DecodeState:
    """The state of these places, in this order; a place may come twice (a branch)."""
    return DecodeState(
        cache=select_rows(state.cache, places),
        next_positions=tuple(state.next_positions[place] for place in places),
    )


def early_layers(contrasts: Sequence[RowContrast | None]) -> tuple[int, ...]:
    """All layers whose input some row needs, ascending."""
    layers = {layer for row in contrasts if row is not None for layer in row.method.early_layers}
    return tuple(sorted(layers))


def _unique_inputs(inputs: Sequence[Inputs]) -> tuple[list[Inputs], list[int]]:
    """The different prompts among the rows, and for each row which of them is its own."""
    if len(inputs) == 1:
        return list(inputs), [0]
    known: dict[tuple[bytes, bytes], int] = {}
    unique: list[Inputs] = []
    places = []
    for own in inputs:
        patches = b"" if own.patches is None else hashlib.blake2b(own.patches.tobytes()).digest()
        key = own.token_ids.tobytes(), patches + repr(own.image_grids).encode()
        if key not in known:
            known[key] = len(unique)
            unique.append(own)
        places.append(known[key])
    return unique, places


def _by_model(contrasts: Sequence[RowContrast | None]) -> dict[int, list[int]]:
    """The rows that need each second model, by the model's identity."""
    rows: dict[int, list[int]] = {}
    for row, contrast in enumerate(contrasts):
        if contrast is not None and contrast.model is not None:
            rows.setdefault(id(contrast.model), []).append(row)
    return rows


def _start_second(
    rows: Sequence[int], contrasts: Sequence[RowContrast | None], options: LaneOptions
) -> tuple[Lane, Hidden]:
    """Prefill a second model with the other streams of its rows."""
    entries = [(row, contrast) for row in rows if (contrast := contrasts[row]) is not None]
    model = entries[0][1].model
    assert model is not None
    streams = [one for _, contrast in entries for one in contrast.inputs]
    owners = tuple(row for row, contrast in entries for _ in contrast.inputs)
    unique, places = _unique_inputs(streams)
    try:
        embeddings = model.embed(unique)
    except VlmkitError as error:
        raise VlmkitError(f"contrast.amateur: {error}") from error
    state, hidden = prefill_hidden(
        model,
        embeddings,
        options.new_cache(model, len(unique)),
        step_size=options.prefill_step_size,
    )
    if len(unique) < len(streams):
        state, hidden = select_state(state, places), Hidden(hidden.final[mx.array(places)])
    return Lane(model, state, owners), hidden


def _row_logits(
    lanes: Sequence[Lane],
    outputs: Sequence[Hidden],
    contrasts: Sequence[RowContrast | None],
    num_tokens: Sequence[int],
) -> RowLogits:
    """Project the lanes' hidden states and combine the streams of each row."""
    batch, lane, hidden = len(contrasts), lanes[0], outputs[0].final
    logits = [
        one.model.logits(output.final).astype(mx.float32)
        for one, output in zip(lanes, outputs, strict=True)
    ]
    own, mains = logits[0], list(range(batch))  # the place of each row's own stream
    if len(lane.owners) > batch:
        mains = [lane.owners.index(row) for row in mains]
        own, hidden = own[mx.array(mains)], hidden[mx.array(mains)]
    groups: dict[Hashable, list[int]] = {}
    for row, contrast in enumerate(contrasts):
        groups.setdefault(None if contrast is None else contrast.key, []).append(row)
    if list(groups) == [None]:
        return RowLogits(own, own, hidden)
    early = dict(zip(early_layers(contrasts), outputs[0].early, strict=True))
    parts, contrasted = [], []
    for rows in groups.values():
        contrast = contrasts[rows[0]]
        mine = own[mx.array(rows)]
        if contrast is None:
            parts.append(mine)
            continue
        method = contrast.method
        if method.early_layers:
            places = mx.array([mains[row] for row in rows])
            tapped = [early[layer][places] for layer in method.early_layers]
            others = lane.model.logits(mx.stack(tapped, axis=1)).astype(mx.float32)
        else:
            others = _others(lanes, logits, contrast, rows)
        mine, others = _same_vocabulary(mine, others)
        counts = mx.array([num_tokens[row] for row in rows], mx.int32)
        contrasted.append(Contrasted(tuple(rows), method, mine, others, counts))
        parts.append(method.combine(mine, others, counts))
    order = [row for rows in groups.values() for row in rows]
    combined = parts[0] if len(parts) == 1 else mx.concatenate(parts)[mx.array(np.argsort(order))]
    return RowLogits(own, combined, hidden, contrasted=tuple(contrasted))


def _others(
    lanes: Sequence[Lane], logits: Sequence[mx.array], contrast: RowContrast, rows: Sequence[int]
) -> mx.array:
    """The logits ``[len(rows), N, V]`` of the rows' other streams."""
    if contrast.model is None:
        number, num_own = 0, 1
    else:
        same = (place for place, lane in enumerate(lanes) if lane.model is contrast.model)
        number, num_own = next(place for place in same if place > 0), 0
    owners = lanes[number].owners
    index = [[p for p, owner in enumerate(owners) if owner == row][num_own:] for row in rows]
    return logits[number][mx.array(index)]


def _same_vocabulary(own: mx.array, others: mx.array) -> tuple[mx.array, mx.array]:
    """Give both the width of ``own``; ids that the others don't have can't be drawn.

    Checkpoints pad their vocabulary to different sizes; no token has those ids.
    """
    size, theirs = own.shape[-1], others.shape[-1]
    if theirs > size:
        return own, others[..., :size]
    if theirs < size:
        padding = [(0, 0)] * (others.ndim - 1) + [(0, size - theirs)]
        others = mx.pad(others, padding, constant_values=-mx.inf)
        own = mx.where(mx.arange(size) < theirs, own, -mx.inf)
    return own, others

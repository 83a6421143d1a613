"""Rows of decode states and hidden states: choose some, put batches together."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from vlmkit.cache import join_rows, select_rows
from vlmkit.contracts.interface import DecodeState, Hidden


def select_state(state: DecodeState, places: Sequence[int]) -> DecodeState:
    """Return the state of these rows, in this order; a row may come twice (a branch)."""
    return DecodeState(
        cache=select_rows(state.cache, places),
        next_positions=tuple(state.next_positions[place] for place in places),
    )


def join_states(states: Sequence[DecodeState]) -> DecodeState:
    """Return one state with the rows of all, in order."""
    if len(states) == 1:
        return states[0]
    return DecodeState(
        cache=join_rows([state.cache for state in states]),
        next_positions=tuple(position for state in states for position in state.next_positions),
    )


def select_hidden(hidden: Hidden, places: Sequence[int]) -> Hidden:
    """Return the hidden states of these rows; those of a whole prompt stay."""
    index = mx.array(list(places))
    return Hidden(hidden.final[index], tuple(layer[index] for layer in hidden.taps), hidden.prompt)

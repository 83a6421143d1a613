"""The state of a recurrent layer: a few arrays per row that every token changes."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from vlmkit.contracts.interface import RecurrentSpec, StateKind
from vlmkit.errors import VlmkitError

State = tuple[mx.array, ...]
"""One array ``[B, *]`` per entry of :class:`~vlmkit.contracts.interface.RecurrentSpec`."""


def recurrent() -> StateKind:
    """Build the kind of recurrent states: whole arrays, zero before the first token.

    A state has no tokens to take back, so ``trim`` refuses; an earlier state that was kept is
    still valid.

    Example:
        >>> from vlmkit.contracts.interface import StateArray
        >>> spec = RecurrentSpec((StateArray("conv", (3, 8)),))
        >>> [x.shape for x in recurrent().init(2, spec, mx.float32)]
        [(2, 3, 8)]
    """
    return StateKind("recurrent", (), _init, _select, _join, _trim, _num_bytes)


def _init(batch: int, spec: RecurrentSpec, dtype: mx.Dtype) -> State:
    return tuple(
        mx.zeros((batch, *array.shape), dtype if array.dtype is None else array.dtype)
        for array in spec.arrays
    )


def _select(state: State, rows: Sequence[int], seen: Sequence[int]) -> State:
    index = mx.array(list(rows), mx.int32)
    return tuple(x[index] for x in state)


def _join(states: Sequence[State], seen: Sequence[Sequence[int]]) -> State:
    return tuple(mx.concatenate(list(arrays), axis=0) for arrays in zip(*states, strict=True))


def _trim(state: State, seen: Sequence[int], kept: Sequence[int]) -> State:
    if tuple(seen) != tuple(kept):
        raise VlmkitError(
            "cache: a recurrent layer cannot take tokens back; keep the earlier state instead",
            path=("cache",),
        )
    return state


def _num_bytes(state: State) -> int:
    return sum(x.nbytes for x in state)

"""The logits and histories on which every law is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.sampling.contract import VOCAB_SIZE

SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]] = {
    "normal": lambda rng, shape: rng.normal(size=shape) * 3,
    "peaked": lambda rng, shape: rng.normal(size=shape) * 30,
    "flat": lambda rng, shape: np.full(shape, rng.normal()),
    "nearly flat": lambda rng, shape: rng.normal(size=shape) * 1e-3,
    "ties": lambda rng, shape: rng.integers(-2, 3, size=shape),
    "far from zero": lambda rng, shape: rng.normal(size=shape) + 1000,
    "huge": lambda rng, shape: rng.normal(size=shape) * 1e30,
    "one finite": lambda rng, shape: np.where(np.arange(shape[1]) == shape[1] // 2, 1.0, -np.inf),
}


@st.composite
def logits(
    draw: st.DrawFn,
    exact: bool = False,
    size: int = VOCAB_SIZE,
    only: tuple[str, ...] = tuple(SHAPES),
) -> NDArray[np.float32]:
    """Draw float32 ``[B, V]`` logits: peaked, flat, tied, huge, rounded to bfloat16, with −inf.

    Args:
        draw: given by hypothesis.
        exact: keep to multiples of 1/64 below 100, so that adding an integer is exact.
        size: V.
        only: the shapes of distribution to draw from.
    """
    rows = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = [name for name in only if not (exact and name in ("huge", "far from zero"))]
    values = np.empty((rows, size), np.float32)
    for row in range(rows):
        shape = SHAPES[draw(st.sampled_from(names))]
        values[row] = np.broadcast_to(shape(rng, (1, size)), (1, size))[0]
        if draw(st.booleans()):
            hidden = rng.random(size) < draw(st.sampled_from([0.1, 0.5, 0.95]))
            hidden[rng.integers(size)] = False
            if np.isfinite(values[row][~hidden]).any():
                values[row][hidden] = -np.inf
    if exact:
        values = (np.clip(values, -90, 90) * 64).round().astype(np.float32) / 64 + np.where(
            np.isneginf(values), -np.inf, 0
        ).astype(np.float32)
    elif draw(st.booleans()):
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)  # bfloat16
    return values


@st.composite
def histories(draw: st.DrawFn, rows: int, size: int = VOCAB_SIZE) -> tuple[Any, Any]:
    """Draw prompts (one id array per row, some empty) and the tokens taken since, ``[T, B]``."""
    ids = st.integers(0, size - 1)
    prompts = [
        np.array(draw(st.lists(ids, max_size=12)), dtype=np.int32).reshape(-1) for _ in range(rows)
    ]
    steps = draw(st.lists(st.lists(ids, min_size=rows, max_size=rows), max_size=6))
    return prompts, np.array(steps, dtype=np.int32).reshape(-1, rows)

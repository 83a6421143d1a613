"""Runs of the decode loop that tests look into: the steps of each row, and the passes it took."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from vlmkit.engine import Request, RunOptions, Step, check_requests, run_requests
from vlmkit.pipeline import PipelineConfig


def run_steps(
    model: Any,
    processor: Any,
    rows: Sequence[tuple[Request, PipelineConfig]],
    **options: Any,
) -> list[list[Step]]:
    """The steps of each row."""
    work = check_requests(model, processor, rows)
    found: list[list[Step]] = [[] for _ in rows]
    for step, _ in run_requests(model, processor, work, RunOptions(**options)):
        found[step.row].append(step)
    return found


def token_ids(steps: Sequence[Step]) -> list[int]:
    """The tokens that a row's steps give."""
    return [step.token_id for step in steps if step.token_id is not None]


class Passes(NamedTuple):
    """What a counted model was asked for."""

    forwards: list[tuple[int, int]]  # (rows, tokens per row) of each forward pass
    encoded: list[int]  # media of each call of the encoder

    @property
    def prefills(self) -> list[tuple[int, int]]:
        """Forward passes over more than one token per row."""
        return [one for one in self.forwards if one[1] > 1]

    @property
    def steps(self) -> list[int]:
        """Rows of each pass over one token per row."""
        return [rows for rows, width in self.forwards if width == 1]


def counted(model: Any) -> tuple[Any, Passes]:
    """A model that shares all weights with another, and notes what it is asked for."""
    passes = Passes([], [])

    class Counted(type(model)):  # type: ignore[misc]
        def forward(self, piece: Any, cache: Any, span: Any, taps: Sequence[int] = ()) -> Any:
            passes.forwards.append((len(span.starts), span.width))
            return super().forward(piece, cache, span, taps)

        def encode(self, media: Any) -> Any:
            passes.encoded.append(len(media))
            return super().encode(media)

    twin = copy.copy(model)
    twin.__class__ = Counted
    return twin, passes


def ticking() -> Any:
    """A clock that goes on by one second whenever it is read."""
    seconds = itertools.count()
    return lambda: float(next(seconds))

"""Rows that think: the markers, and a run under a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.stopping.simulate import Run, simulate
from vlmkit.contracts.stages import StoppingCriterion
from vlmkit.stopping import ThinkingBudgetConfig
from vlmkit.stopping.eos import EosMarkers
from vlmkit.stopping.thinking_budget import thinking_budget
from vlmkit.stopping.thinking_config import ThinkingMarkers

A, B, C = 1, 2, 3
EOS_ID = 9
START, END = (50, 51, 52), (60, 61, 62)
WAIT = (80, 81)
MARKER_LENGTHS = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (3, 3)]


def criterion(
    budget: int | None,
    *,
    start: Sequence[int] = START[:1],
    end: Sequence[int] = END[:1],
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    eos_texts: tuple[str, ...] = (),
    **options: Any,
) -> StoppingCriterion:
    markers = ThinkingMarkers(tuple(start), tuple(end), (*before, *end, *after), WAIT)
    config = ThinkingBudgetConfig(budget=budget, **options)
    return thinking_budget(config, markers, EosMarkers(frozenset({EOS_ID}), eos_texts))


def think(draws: Sequence[int], prompt: Sequence[int] = (), **options: Any) -> Run:
    budget = options.pop("budget")
    return simulate(criterion(budget, **options), draws, lambda i: f"{i} ", prompt)

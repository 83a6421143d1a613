"""Plots of a comparison as numbers in per cent of their frame; the page draws them as SVG.

Positions in per cent stretch to any width while text and marks keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vlmkit.experiment.comparison import Comparison, Interval, MetricTable
from vlmkit.experiment.tables import number, with_interval


class Tick(NamedTuple):
    at: float  # per cent
    label: str


class Bar(NamedTuple):
    """One arm's value with its interval."""

    arm: str
    label: str
    at: float
    low: float
    high: float
    is_reference: bool


class Forest(NamedTuple):
    """Values of arms under each other."""

    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    line: float | None  # where the baseline is


class Dot(NamedTuple):
    label: str  # the number of the arm in the legend
    arm: str
    x: float
    y: float  # from above


class Scatter(NamedTuple):
    title: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


class Axis(NamedTuple):
    """A range of values on 0 to 100 per cent."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


def score_forest(metric: MetricTable, comparison: Comparison) -> Forest | None:
    """Every arm's score with its interval; None without any."""
    values = [(row.arm, row.score, row.interval) for row in metric.rows]
    base = [row.score for row in metric.rows if row.arm == comparison.baseline]
    return _forest("score", values, base[0] if base else None, comparison, signed=False)


def difference_forest(metric: MetricTable, comparison: Comparison) -> Forest | None:
    """Every arm's difference to the baseline with its interval; None without any."""
    values = [(row.arm, row.difference, row.difference_interval) for row in metric.rows]
    title = f"difference to {comparison.baseline}"
    return _forest(title, values, 0.0, comparison, signed=True)


def cost_scatter(metric: MetricTable, comparison: Comparison) -> Scatter | None:
    """Score over generated tokens; None where fewer than two arms differ in them."""
    points = [
        (place, row.arm, cost.tokens, row.score)
        for place, (row, cost) in enumerate(zip(metric.rows, comparison.arms, strict=True), 1)
        if row.score is not None and cost.tokens is not None
    ]
    if len({tokens for _, _, tokens, _ in points}) < 2:
        return None
    x_axis = axis_of([float(tokens or 0) for _, _, tokens, _ in points])
    y_axis = axis_of([float(score or 0) for _, _, _, score in points])
    dots = tuple(
        Dot(str(place), arm, x_axis.at(tokens or 0), 100 - y_axis.at(score or 0))
        for place, arm, tokens, score in points
    )
    y_ticks = tuple(tick._replace(at=100 - tick.at) for tick in ticks(y_axis))
    return Scatter(f"{metric.metric} over generated tokens", dots, ticks(x_axis), y_ticks)


def axis_of(values: Sequence[float]) -> Axis:
    """A range around values, with room at both ends.

    >>> axis_of([0.0, 1.0])
    Axis(low=-0.08, high=1.08)
    """
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return Axis(low - room, high + room)


def ticks(axis: Axis, most: int = 5) -> tuple[Tick, ...]:
    """Round values within a range.

    >>> [tick.label for tick in ticks(Axis(-0.02, 0.33))]
    ['0', '0.1', '0.2', '0.3']
    """
    rough = (axis.high - axis.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return tuple(
        Tick(axis.at(place * step), _tick_label(place * step, digits))
        for place in range(first, last + 1)
    )


def _tick_label(value: float, digits: int) -> str:
    return "0" if value == 0 else f"{value:.{digits}f}".replace("-", "−")


def _forest(
    title: str,
    values: Sequence[tuple[str, float | None, Interval | None]],
    line: float | None,
    comparison: Comparison,
    *,
    signed: bool,
) -> Forest | None:
    known = [(arm, value, ends or Interval(value, value)) for arm, value, ends in values
             if value is not None]  # fmt: skip
    if not known:
        return None
    ends = [end for _, _, interval in known for end in interval]
    axis = axis_of([*ends, *([] if line is None else [line])])
    bars = tuple(
        Bar(
            arm=arm,
            label=with_interval(value, interval, signed=signed) if interval.low != interval.high
            else number(value, signed=signed),
            at=axis.at(value),
            low=axis.at(interval.low),
            high=axis.at(interval.high),
            is_reference=arm == comparison.baseline,
        )
        for arm, value, interval in known
    )  # fmt: skip
    return Forest(title, bars, ticks(axis), None if line is None else axis.at(line))

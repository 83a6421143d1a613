"""Plots of a kv-eval as numbers in per cent of their frame; the page draws them as SVG."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vlmkit.experiment.kv_eval.records import LockstepRecord
from vlmkit.experiment.kv_eval.summary import PolicySummary
from vlmkit.experiment.kv_eval.tables import shown_name, small
from vlmkit.experiment.report.plots import Axis, Dot, Tick, axis_of, ticks

_BARS = 120  # of a strip, at most
_DECADES = 6.0  # that a logarithmic scale shows below its largest value


class Segment(NamedTuple):
    """A line from one place to another."""

    x1: float
    y1: float
    x2: float
    y2: float


class Pareto(NamedTuple):
    """Policies by bytes and distance; the front is what no other policy beats in both."""

    dots: tuple[Dot, ...]
    front: tuple[Segment, ...]
    names: tuple[str, ...]  # on the front
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


class Bar(NamedTuple):
    """Mean KL of some neighbouring positions."""

    x: float
    width: float
    height: float


class Strip(NamedTuple):
    """One policy's KL by position."""

    policy: str
    label: str
    bars: tuple[Bar, ...]


class Shade(NamedTuple):
    """Positions that are an image's in some share of the samples."""

    x: float
    width: float
    share: float


class Strips(NamedTuple):
    """KL by position from the first token of the answer, which is 0."""

    strips: tuple[Strip, ...]
    shades: tuple[Shade, ...]
    answer: float  # where the answer begins
    ticks: tuple[Tick, ...]
    low: str  # what the bottom of a strip stands for
    high: str


class Heat(NamedTuple):
    """Policies by layers, coloured by size."""

    title: str
    layers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]  # a text and 0 to 1


def pareto(rows: Sequence[PolicySummary]) -> Pareto | None:
    """Mean KL, on a logarithmic scale, over bytes; None where no policy differs."""
    points = [
        (number, row.policy, row.held_bytes, row.kl.mean)
        for number, row in enumerate(rows)
        if not row.is_baseline and row.kl is not None and row.kl.mean > 0
    ]
    if not points:
        return None
    x_axis = axis_of([held for _, _, held, _ in points])
    y_axis = _log_axis([mean for *_, mean in points])
    dots = tuple(
        Dot(str(number), name, x_axis.at(held), 100 - y_axis.at(math.log10(mean)))
        for number, name, held, mean in points
    )
    front, best = [], math.inf
    for (_, _, _, mean), dot in sorted(
        zip(points, dots, strict=True), key=lambda pair: (pair[0][2], pair[0][3])
    ):
        if mean < best:
            front.append(dot)
            best = mean
    lines = tuple(Segment(a.x, a.y, b.x, b.y) for a, b in itertools.pairwise(front))
    names = tuple(dot.arm for dot in front)
    return Pareto(dots, lines, names, _byte_ticks(x_axis), _log_ticks(y_axis))


def position_strips(
    rows: Sequence[PolicySummary], records: Iterable[LockstepRecord]
) -> Strips | None:
    """KL by position of all policies but the baseline; None where nothing differs."""
    sums: dict[str, dict[int, tuple[float, int]]] = defaultdict(dict)
    images: dict[int, int] = defaultdict(int)
    counts: dict[int, int] = defaultdict(int)
    baseline = rows[0].policy
    for record in records:
        first = 1 - record.prompt_tokens  # the last prompt token stands before answer token 0
        values = [*record.prompt_kl, *record.kl]
        for place, value in enumerate(values):
            at = first + place
            if record.arm == baseline:
                counts[at] += 1
                images[at] += any(start <= place < end for start, end in record.images)
                continue
            total, number = sums[record.arm].get(at, (0.0, 0))
            sums[record.arm][at] = total + value, number + 1
    if not counts or not sums:
        return None
    start, stop = min(counts), max(counts) + 1
    step = math.ceil((stop - start) / _BARS)
    bins = [range(at, min(at + step, stop)) for at in range(start, stop, step)]
    means = {
        name: [_mean([found[at] for at in one if at in found]) for one in bins]
        for name, found in sums.items()
    }
    high = max(value for values in means.values() for value in values)
    if high <= 0:
        return None
    axis = Axis(float(start), float(stop))
    scale = math.log10(high) - _DECADES
    strips = tuple(
        Strip(name, f"max {small(max(means[name]))}", _bars(means[name], bins, axis, scale))
        for name in (row.policy for row in rows)
        if name in means
    )
    shades = []
    for one in bins:
        number = sum(counts[at] for at in one)
        share = sum(images[at] for at in one) / number if number else 0.0
        if share:
            x = axis.at(one.start)
            shades.append(Shade(x, round(axis.at(one.stop) - x, 2), round(share, 2)))
    return Strips(strips, tuple(shades), axis.at(0), ticks(axis), small(10**scale), small(high))


def heat(title: str, rows: Sequence[PolicySummary], field: str) -> Heat | None:
    """Colour a number that each policy has by layer, on a logarithmic scale of all of them."""
    values = {
        shown_name(row): getattr(row, field)
        for row in rows
        if getattr(row, field) and not row.is_baseline
    }
    known = [value for own in values.values() for value in own if value > 0]
    if not known:
        return None
    high = max(known)
    decades = min(max(math.log10(high / min(known)), 1.0), _DECADES)
    scale = math.log10(high) - decades
    return Heat(
        title,
        tuple(str(layer) for layer in range(max(map(len, values.values())))),
        tuple(
            (name, tuple((small(value), _share(value, scale, decades)) for value in own))
            for name, own in values.items()
        ),
    )


def _mean(pairs: Sequence[tuple[float, int]]) -> float:
    number = sum(count for _, count in pairs)
    return sum(total for total, _ in pairs) / number if number else 0.0


def _bars(
    means: Sequence[float], bins: Sequence[range], axis: Axis, scale: float
) -> tuple[Bar, ...]:
    return tuple(
        Bar(x, round(max(axis.at(one.stop) - x - 0.15, 0.1), 2), 100 * _share(value, scale))
        for value, one in zip(means, bins, strict=True)
        if value > 0 and _share(value, scale) > 0
        for x in (axis.at(one.start),)
    )


def _share(value: float, scale: float, decades: float = _DECADES) -> float:
    """Where a value lies on the logarithmic scale, 0 to 1."""
    if value <= 0:
        return 0.0
    return round(min(max((math.log10(value) - scale) / decades, 0.0), 1.0), 3)


def _log_axis(values: Sequence[float]) -> Axis:
    """Whole decades around values."""
    logs = [math.log10(value) for value in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return Axis(float(low), float(max(high, low + 1)))


def _log_ticks(axis: Axis) -> tuple[Tick, ...]:
    low, high = round(axis.low), round(axis.high)
    step = max(1, math.ceil((high - low) / 6))
    return tuple(
        Tick(100 - axis.at(power), f"1e{power}".replace("-", "−"))
        for power in range(low, high + 1, step)
    )


def _byte_ticks(axis: Axis) -> tuple[Tick, ...]:
    unit, name = (1e6, " MB") if axis.high >= 2e6 else (1e3, " kB")
    scaled = Axis(axis.low / unit, axis.high / unit)
    return tuple(tick._replace(label=tick.label + name) for tick in ticks(scaled))

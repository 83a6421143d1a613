"""A comparison as tables of text: what every format that people read shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vlmkit.experiment.comparison import ArmCost, ArmScore, Comparison, Interval, MetricTable
from vlmkit.experiment.shown import counted

UNKNOWN = "–"
_COSTS = ("tokens", "prefill s", "decode s", "cache MB", "errors")
_MEGABYTE = 1e6
_LONG = 16  # characters of an arm's name, where there is little width
_SHOWN = 4  # arms that a note names one by one
_FEW = 30  # samples: Hesterberg, What Teachers Should Know About the Bootstrap (2015), section 4
_TESTS = {"mcnemar": "McNemar's exact test", "sign_flip": "sign-flip permutation test"}


class TextTable(NamedTuple):
    """A titled table; the first ``num_text`` columns are words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    num_text: int = 1


def number(value: float | None, *, signed: bool = False) -> str:
    """Write a number in a few characters; None is an en dash.

    >>> number(0.12345), number(-0.5, signed=True), number(12345.6), number(None)
    ('0.123', '−0.500', '12346', '–')
    """
    if value is None:
        return UNKNOWN
    digits = 3 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def with_interval(value: float | None, interval: Interval | None, *, signed: bool = False) -> str:
    """Write a number and how sure it is.

    >>> with_interval(0.5, Interval(0.4, 0.6))
    '0.500 [0.400, 0.600]'
    """
    if interval is None:
        return number(value, signed=signed)
    low, high = (number(end, signed=signed) for end in interval)
    return f"{number(value, signed=signed)} [{low}, {high}]"


def p_value(value: float | None) -> str:
    """Write a p-value; a small one only as small.

    >>> p_value(0.0123), p_value(0.0001), p_value(None)
    ('0.012', '<0.001', '–')
    """
    if value is None:
        return UNKNOWN
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def differs_in(cost: ArmCost, comparison: Comparison) -> str:
    """What an arm changes, in one line."""
    if cost.arm == comparison.reference:
        return "baseline" if comparison.baseline else UNKNOWN
    return ", ".join(f"{path}: {value}" for path, value in cost.differs.items()) or UNKNOWN


def text_tables(comparison: Comparison) -> list[TextTable]:
    """All tables of a comparison: one per metric, and one more where there is more to say."""
    tables = []
    for metric in comparison.metrics:
        tables.append(_main(metric, comparison))
        more = _more(metric, comparison)
        if more is not None:
            tables.append(more)
    return tables or [_costs_only(comparison)]


def design_notes(metric: MetricTable, comparison: Comparison) -> list[str]:
    """How to read the numbers of a metric: what the intervals, tests and limits are."""
    settings, num_seeds = comparison.settings, len(comparison.seeds)
    over = counted(comparison.num_samples, "sample")
    seeds = f", the {num_seeds} seeds of a sample drawn together" if num_seeds > 1 else ""
    notes = [f"[low, high]: {settings.confidence:.0%} bootstrap interval over {over}{seeds}."]
    if any(row.score in (0.0, 1.0) for row in metric.rows):
        notes.append("Where all are right or all are wrong, the interval is Clopper–Pearson's.")
    if 0 < comparison.num_samples < _FEW:
        notes.append(f"With fewer than {_FEW} samples such intervals are too narrow.")
    tested = [row for row in metric.rows if row.test is not None]
    if comparison.baseline is None or not tested:
        return notes
    tests = " and ".join(sorted({_TESTS[row.test] for row in tested if row.test}))
    notes.append(
        f"difference: to {comparison.baseline}, paired by sample; p: {tests}, "
        f"Holm-corrected over {counted(len(tested), 'arm')}."
    )
    limits = [row.detectable for row in tested if row.detectable is not None]
    if limits:
        notes.append(
            f"A true difference below {_limits(tested)} is found in less than "
            f"{settings.power:.0%} of such runs: what is not found here may still be there."
        )
    if len(limits) < len(tested):
        notes.append("Where no difference was seen at all, what could be seen is not known.")
    return notes


def _limits(rows: Sequence[ArmScore]) -> str:
    """What can be detected of each arm, or of the best and the worst of many."""
    known = [(row.detectable, row.arm) for row in rows if row.detectable is not None]
    if len(known) > _SHOWN:
        (low, best), (high, worst) = min(known), max(known)
        return f"{number(low)} ({best}) to {number(high)} ({worst}), by arm,"
    return ", ".join(f"{number(value)} ({arm})" for value, arm in known)


def cost_notes(comparison: Comparison) -> list[str]:
    """How to read what arms cost, and which responses hold no answer."""
    costs = comparison.arms
    records, alone = sum(cost.records for cost in costs), sum(cost.alone for cost in costs)
    how = "rows were decoded together, and a prefill that several share counts evenly for each"
    if records and alone == records:
        how = "each response ran by itself"
    elif alone:
        how += f", but {counted(alone, 'response')} of {records:,} ran alone"
    notes = [f"tokens, s, MB of KV cache: mean per response; {how}."]
    silent = [cost for cost in costs if cost.unanswered]
    if silent:
        named = ", ".join(f"{cost.unanswered:,} ({cost.arm})" for cost in silent[:_SHOWN])
        more = ", …" if len(silent) > _SHOWN else ""
        notes.append(
            f"Ended while thinking, so scored as an empty answer: {named}{more} of {records:,} "
            "responses."
        )
    return notes


def _main(metric: MetricTable, comparison: Comparison) -> TextTable:
    columns = ("arm", "differs in", "n", "score", "difference", "p (Holm)", *_COSTS)
    rows = []
    for row, cost in zip(metric.rows, comparison.arms, strict=True):
        difference = with_interval(row.difference, row.difference_interval, signed=True)
        rows.append(
            (
                row.arm,
                differs_in(cost, comparison),
                str(row.samples),
                with_interval(row.score, row.interval),
                UNKNOWN if row.difference is None else difference,
                p_value(row.p_holm),
                *_costs(cost),
            )
        )
    notes = [*design_notes(metric, comparison), *cost_notes(comparison)]
    return TextTable(metric.metric, columns, tuple(rows), tuple(notes), num_text=2)


def _more(metric: MetricTable, comparison: Comparison) -> TextTable | None:
    parts: list[tuple[str, Callable[[ArmScore], Mapping[str, float]]]] = []
    for label, of in (("pass@", _pass_at), ("majority@", _majority_at), ("", _summary)):
        names = list(dict.fromkeys(name for row in metric.rows for name in of(row)))
        parts += [(label + name, _item(of, name)) for name in names]
    if not parts:
        return None
    rows = [
        (row.arm, *(number(next(iter(of(row).values()), None)) for _, of in parts))
        for row in metric.rows
    ]
    notes = []
    if any(row.pass_at or row.majority_at for row in metric.rows):
        notes.append(
            "pass@k: at least one of k seeds right; majority@k: score of the most frequent answer; "
            "over samples with all seeds."
        )
    columns = ("arm", *(name for name, _ in parts))
    return TextTable(f"{metric.metric}: further numbers", columns, tuple(rows), tuple(notes))


def _costs_only(comparison: Comparison) -> TextTable:
    rows = tuple(
        (
            cost.arm,
            differs_in(cost, comparison),
            str(cost.records),
            *_costs(cost),
        )
        for cost in comparison.arms
    )
    columns = ("arm", "differs in", "n", *_COSTS)
    return TextTable("arms", columns, rows, tuple(cost_notes(comparison)), num_text=2)


def _item(
    of: Callable[[ArmScore], Mapping[str, float]], name: str
) -> Callable[[ArmScore], Mapping[str, float]]:
    return lambda row: {name: of(row)[name]} if name in of(row) else {}


def _pass_at(row: ArmScore) -> Mapping[str, float]:
    return {str(k): value for k, value in row.pass_at.items()}


def _majority_at(row: ArmScore) -> Mapping[str, float]:
    return {str(k): value for k, value in row.majority_at.items()}


def _summary(row: ArmScore) -> Mapping[str, float]:
    return row.summary


def _costs(cost: ArmCost) -> tuple[str, ...]:
    """The cells of `_COSTS`."""
    size = None if cost.cache_bytes is None else cost.cache_bytes / _MEGABYTE
    return (
        UNKNOWN if cost.tokens is None else f"{cost.tokens:.1f}",
        number(cost.prompt_s),
        number(cost.generation_s),
        number(size),
        str(cost.errors),
    )


def narrow(comparison: Comparison) -> list[TextTable]:
    """The same for little width: what arms are, what metrics say, and what arms cost, one by one.

    Where names are long, arms are numbered.
    """
    tables = text_tables(comparison)
    first, notes = tables[0], cost_notes(comparison)
    names = [row[0] for row in first.rows]
    numbers = {name: name for name in names}
    if max(map(len, names), default=0) > _LONG:
        numbers = {name: f"({place})" for place, name in enumerate(names, 1)}
    titles = [name if numbers[name] == name else f"{numbers[name]} {name}" for name in names]
    differs = tuple((title, row[1]) for title, row in zip(titles, first.rows, strict=True))
    shown = [TextTable("arms", first.columns[:2], differs, num_text=2)]
    for table in tables:
        if "differs in" in table.columns:
            kept = [name for name in table.columns if name not in ("differs in", *_COSTS)]
            own = tuple(note for note in table.notes if note not in notes)
            table = _only(table, _places(table, kept))._replace(notes=own, num_text=1)
        if table.columns != ("arm", "n"):
            shown.append(_renamed(table, numbers))
    counted_here = () if "score" in first.columns else ("n",)
    costs = _only(first, _places(first, ("arm", *counted_here, *_COSTS)))
    costs = costs._replace(title="costs", notes=tuple(notes), num_text=1)
    return [*shown, _renamed(costs, numbers)]


def _renamed(table: TextTable, names: Mapping[str, str]) -> TextTable:
    return table._replace(rows=tuple((names[row[0]], *row[1:]) for row in table.rows))


def _places(table: TextTable, names: Sequence[str]) -> list[int]:
    return [table.columns.index(name) for name in names]


def _only(table: TextTable, places: Sequence[int]) -> TextTable:
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return table._replace(columns=tuple(table.columns[place] for place in places), rows=rows)

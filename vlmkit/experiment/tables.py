"""A comparison as tables of text: what every format that people read shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vlmkit.experiment.comparison import ArmCost, ArmScore, Comparison, Interval, MetricTable

UNKNOWN = "–"
_COSTS = ("tokens", "s", "errors")
_COST_NOTE = "tokens, s: mean per response; rows were decoded together."
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
    over = f"{comparison.num_samples} sample{_s(comparison.num_samples)}"
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
        f"Holm-corrected over {len(tested)} arm{_s(len(tested))}."
    )
    limits = [row.detectable for row in tested if row.detectable is not None]
    if limits:
        notes.append(
            f"A true difference below {number(max(limits))} is found in less than "
            f"{settings.power:.0%} of such runs: what is not found here may still be there."
        )
    if len(limits) < len(tested):
        notes.append("Where no difference was seen at all, what could be seen is not known.")
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
                _tokens(cost),
                _seconds(cost),
                str(cost.errors),
            )
        )
    notes = design_notes(metric, comparison)
    notes.append(_COST_NOTE)
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
            _tokens(cost),
            _seconds(cost),
            str(cost.errors),
        )
        for cost in comparison.arms
    )
    columns = ("arm", "differs in", "n", *_COSTS)
    return TextTable("arms", columns, rows, num_text=2)


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


def _tokens(cost: ArmCost) -> str:
    return UNKNOWN if cost.tokens is None else f"{cost.tokens:.1f}"


def _seconds(cost: ArmCost) -> str:
    if cost.prompt_s is None or cost.generation_s is None:
        return UNKNOWN
    return number(cost.prompt_s + cost.generation_s)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def narrow(tables: Sequence[TextTable]) -> list[TextTable]:
    """The same for little width: what arms are and cost first, then only what metrics say."""
    if not tables or tables[0].columns[1:2] != ("differs in",) or "score" not in tables[0].columns:
        return list(tables)
    first = tables[0]
    costs = _places(first, ("arm", "differs in", *_COSTS))
    arms = _only(first, costs)._replace(title="arms", notes=(_COST_NOTE,))
    shown = [arms]
    for table in tables:
        kept = [name for name in table.columns if name not in ("differs in", *_COSTS)]
        notes = tuple(note for note in table.notes if note != _COST_NOTE)
        cut = _only(table, _places(table, kept))
        shown.append(cut._replace(notes=notes, num_text=1) if table.num_text == 2 else table)
    return shown


def _places(table: TextTable, names: Sequence[str]) -> list[int]:
    return [table.columns.index(name) for name in names]


def _only(table: TextTable, places: Sequence[int]) -> TextTable:
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return table._replace(columns=tuple(table.columns[place] for place in places), rows=rows)

"""A kv-eval as tables of text: what every format that people read shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmkit.experiment.comparison import Comparison, Interval
from vlmkit.experiment.kv_eval.summary import SLICES, PolicySummary, Spread
from vlmkit.experiment.shown import counted
from vlmkit.experiment.tables import (
    UNKNOWN,
    TextTable,
    number,
    with_interval,
)
from vlmkit.experiment.tables import text_tables as comparison_tables

_FEW_POSITIONS = 1000  # below, a p99.9 is the largest value


def kv_tables(
    rows: Sequence[PolicySummary],
    comparison: Comparison | None,
    score_tables: Callable[[Comparison], list[TextTable]] = comparison_tables,
) -> list[TextTable]:
    """All tables of a kv-eval.

    Args:
        rows: the policies, the baseline first.
        comparison: of the free-running responses' scores; None: there are none.
        score_tables: writes the comparison.
    """
    tables = [_distance(rows), _tokens(rows), *_slices(rows), _running(rows), _applied(rows)]
    tables += [table for table in (_attention(rows), _sensitivity(rows)) if table is not None]
    if comparison is not None and comparison.metrics:
        tables += score_tables(comparison)
    return tables


def small(value: float | None) -> str:
    """Write a number that may be of any size in three digits.

    >>> small(0.01234), small(1.2e-7), small(0.0), small(None)
    ('0.0123', '1.2e−07', '0', '–')
    """
    if value is None:
        return UNKNOWN
    return f"{value:.3g}".replace("-", "−")


def shown_name(row: PolicySummary) -> str:
    """A policy's name; the baseline's row is the baseline once more."""
    return f"{row.policy} (again)" if row.is_baseline else row.policy


def _distance(rows: Sequence[PolicySummary]) -> TextTable:
    columns = ("policy", "bytes", "ratio", "KL mean ± SE", "p99", "p99.9", "max")
    cells = tuple(
        (
            shown_name(row),
            f"{row.held_bytes:,.0f}",
            number(row.bytes_ratio),
            UNKNOWN if row.kl is None else _with_se(row.kl.mean, row.kl.se),
            *_tail(row.kl),
        )
        for row in rows
    )
    return TextTable("lockstep: distance", columns, cells, tuple(_notes(rows)))


def _tokens(rows: Sequence[PolicySummary]) -> TextTable:
    columns = ("policy", "same top-1", "Δ logprob ± SE", "bootstrap")
    cells = tuple(
        (
            shown_name(row),
            with_interval(row.agreement, row.agreement_interval),
            _with_se(row.delta_logprob, row.delta_logprob_se),
            _ends(row.delta_logprob_interval),
        )
        for row in rows
    )
    notes = (
        "same top-1: Wilson's 95% interval, as if positions were independent. Δ logprob: of the "
        "token fed, policy minus baseline; bootstrap: 95%, of the mean over samples, which are "
        "drawn together for all policies.",
    )
    return TextTable("lockstep: tokens", columns, cells, notes)


def _ends(interval: Interval | None) -> str:
    return UNKNOWN if interval is None else f"[{small(interval.low)}, {small(interval.high)}]"


def _notes(rows: Sequence[PolicySummary]) -> list[str]:
    base, positions = rows[0], 0 if rows[0].kl is None else rows[0].kl.positions
    notes = [
        f"KL({base.policy} ‖ policy) in nats at {positions:,} positions of "
        f"{counted(base.samples, 'sample')}, each policy fed the same tokens through its own "
        "cache; ± SE: over samples.",
        f"{shown_name(base)}: the baseline a second time, in batches of half the size: what "
        "rounding alone does.",
        "bytes: keys and values of a row as stored, scales included.",
    ]
    if positions < _FEW_POSITIONS:
        notes.append("With fewer than 1,000 positions p99.9 says little more than max.")
    if base.errors:
        notes.append(f"{counted(base.errors, 'sample')} left out for an error.")
    return notes


def _slices(rows: Sequence[PolicySummary]) -> list[TextTable]:
    known = [name for name in SLICES if any(name in row.slices for row in rows)]
    sizes = ", ".join(
        f"{name} {rows[0].slices[name].positions:,}" for name in known if name in rows[0].slices
    )
    note = f"Positions: {sizes}. Quarters are of prompt and answer together."
    return [
        TextTable(
            f"KL by position: {what}",
            ("policy", *known),
            tuple((shown_name(row), *(_sliced(row, name, what) for name in known)) for row in rows),
            notes,
        )
        for what, notes in (("mean", ()), ("p99", (note,)))
    ]


def _sliced(row: PolicySummary, name: str, what: str) -> str:
    spread = row.slices.get(name)
    return UNKNOWN if spread is None else small(getattr(spread, what))


def _running(rows: Sequence[PolicySummary]) -> TextTable:
    cells = []
    for row in rows:
        own = row.running
        if own is None:
            cells.append((row.policy, *[UNKNOWN] * 5))
            continue
        cells.append(
            (
                row.policy,
                f"{own.responses:,}",
                with_interval(own.exact, own.exact_interval),
                UNKNOWN if own.divergence is None else f"{own.divergence:.1f}",
                f"{own.tokens:.1f}",
                number(own.repetitive),
            )
        )
    columns = ("policy", "n", "same text", "diverges at", "tokens", "repetitive")
    note = (
        "Each policy by itself. same text: all tokens equal the baseline's, Wilson's 95% interval; "
        "diverges at: the first other token, from 0, mean over responses that have one."
    )
    return TextTable("free-running", columns, tuple(cells), (note,))


def _applied(rows: Sequence[PolicySummary]) -> TextTable:
    cells = tuple(
        (
            row.policy,
            f"{row.layers} of {row.num_layers}",
            _bits(row),
            *(f"{value:.1f}" for value in (row.quantized_tokens, row.held_tokens)),
            f"{row.dropped_tokens:.1f}",
        )
        for row in rows
    )
    columns = ("policy", "layers", "bits (K, V)", "quantized", "held", "dropped")
    note = (
        "layers: attention layers in which something is quantized or dropped; tokens: mean per "
        "row, most quantized, fewest held and most dropped of any layer; bits: per element, "
        "scales included."
    )
    return TextTable("what was applied", columns, cells, (note,))


def _attention(rows: Sequence[PolicySummary]) -> TextTable | None:
    values = [row.attention_error for row in rows]
    note = "|policy − baseline| / |baseline| of what attention gives at the decode steps."
    return _by_layer("attention-output error by layer", rows, values, note)


def _sensitivity(rows: Sequence[PolicySummary]) -> TextTable | None:
    note = (
        "Mean KL over the answer with the policy in that attention layer alone, in all keys alone, "
        "in all values alone. A policy that drops tokens has no halves."
    )
    values = [row.layer_kl for row in rows]
    table = _by_layer("sensitivity: KL by layer", rows, values, note)
    if table is None:
        return None
    unknown: list[float | None] = [None, None]
    sides = [row.side_kl or unknown for row in rows if row.layer_kl]
    cells = tuple(
        (*cells, *map(small, side)) for cells, side in zip(table.rows, sides, strict=True)
    )
    return table._replace(columns=(*table.columns, "keys", "values"), rows=cells)


def _by_layer(
    title: str, rows: Sequence[PolicySummary], values: Sequence[Sequence[float]], note: str
) -> TextTable | None:
    layers = max(map(len, values))
    if not layers:
        return None
    columns = ("policy", *(str(layer) for layer in range(layers)))
    cells = tuple(
        (shown_name(row), *map(small, own)) for row, own in zip(rows, values, strict=True) if own
    )
    return TextTable(title, columns, cells, (note,))


def _with_se(value: float | None, error: float | None) -> str:
    return small(value) if error is None else f"{small(value)} ± {small(error)}"


def _tail(kl: Spread | None) -> tuple[str, str, str]:
    if kl is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    return small(kl.p99), small(kl.p999), small(kl.max)


def _bits(row: PolicySummary) -> str:
    if row.key_bits is None or row.value_bits is None:
        return UNKNOWN
    return f"{row.key_bits:g}, {row.value_bits:g}"

"""Rows of a bench for people, and two files of them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from vlmkit.bench.rows import BenchRow, to_json
from vlmkit.experiment.render import lines_to_csv, tables_to_markdown
from vlmkit.experiment.tables import TextTable

_MS = 1e3
_MB = 1e6
_COLUMNS = {
    "layer": "append + attend, one layer",
    "decode": "a whole decode step",
    "prefill": "a whole prefill",
}


def tables(rows: Sequence[BenchRow]) -> list[TextTable]:
    """One table per test, then what the rows have in common."""
    found = []
    for test, title in _COLUMNS.items():
        own = [row for row in rows if row.test == test]
        if own:
            found.append(_table(title, own))
    if found:
        found[-1] = found[-1]._replace(notes=(*found[-1].notes, *setup_notes(rows)))
    return found


def narrow_tables(rows: Sequence[BenchRow]) -> list[TextTable]:
    """The same for a terminal: fewer columns."""
    return [_only(table, (0, 1, 2, 3, 4, 7)) for table in tables(rows)]


def _only(table: TextTable, places: Sequence[int]) -> TextTable:
    columns, *rows = (
        tuple(line[place] for place in places) for line in (table.columns, *table.rows)
    )
    return table._replace(columns=columns, rows=tuple(rows))


def _table(title: str, rows: Sequence[BenchRow]) -> TextTable:
    return TextTable(
        title,
        (
            "policy",
            "context",
            "rows",
            "ms ± IQR",
            "x dense",
            "tokens/s",
            "MB held",
            "x bytes",
            "peak MB",
        ),
        tuple(
            (
                row.policy,
                f"{row.context:,}",
                str(row.batch),
                f"{row.median_s * _MS:.3g} ± {row.iqr_s * _MS:.2g}",
                f"{row.ratio:.2f}",
                "{:.4g} ± {:.2g}".format(*row.tokens_per_s),
                f"{row.held_bytes / _MB:.3g}",
                f"{row.held_ratio:.3f}",
                f"{row.peak_bytes / _MB:.3g}",
            )
            for row in rows
        ),
    )


def setup_notes(rows: Sequence[BenchRow]) -> list[str]:
    """Where and of what the rows are, once for each setup."""
    notes = []
    for index, setup in enumerate(_setups(rows)):
        machine, load = setup["machine"], setup["load_average"]
        name = machine["facts"].get("device_name", machine["device"])
        commit = setup.get("commit", "no commit")[:12] + (" (changed)" if "dirty" in setup else "")
        backend = setup["backend"]
        notes += [
            f"{name}, {machine['cores']} cores, {machine['system']}, load {load[0]} at the start, "
            f"{setup['date']}",
            f"model {setup['model']} in {backend['dtype']} on {backend['device']}, "
            f"BLAS {backend.get('blas', {}).get('name', 'none')}; affine codes: "
            f"{backend['quantized_attention']}; commit {commit}, mlx {setup['versions']['mlx']}",
        ]
        if index == 0:
            notes.append(
                "ms: median and interquartile range; x dense: its median over that of the dense "
                "cache, which took turns with it; tokens/s: mean ± standard deviation, all rows "
                f"together; {setup['repetitions']} samples each"
            )
    return notes


def _setups(rows: Sequence[BenchRow]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in rows:
        if row.setup not in found:
            found.append(row.setup)
    return found


def to_csv(rows: Sequence[BenchRow]) -> str:
    """One line per row, with its raw samples and its setup."""
    return lines_to_csv(
        [
            {
                **{name: getattr(row, name) for name in ("test", "policy", "context", "batch")},
                "median_s": row.median_s,
                "iqr_s": row.iqr_s,
                "tokens_per_s": row.tokens_per_s[0],
                "tokens_per_s_sd": row.tokens_per_s[1],
                "ratio": row.ratio,
                "held_bytes": row.held_bytes,
                "held_ratio": row.held_ratio,
                "cache_bytes": row.cache_bytes,
                "peak_bytes": row.peak_bytes,
                "base_peak_bytes": row.base_peak_bytes,
                "seconds": " ".join(f"{seconds:.9g}" for seconds in row.seconds),
                "base_seconds": " ".join(f"{seconds:.9g}" for seconds in row.base_seconds),
                "config": row.config,
                "setup": row.setup,
            }
            for row in rows
        ]
    )


def to_markdown(rows: Sequence[BenchRow]) -> str:
    """The tables in Markdown."""
    return tables_to_markdown(tables(rows))


FORMATS: dict[str, Callable[[Sequence[BenchRow]], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
}
"""How rows are written; the terminal draws :func:`tables` itself."""


def comparison(old: Sequence[BenchRow], new: Sequence[BenchRow]) -> list[TextTable]:
    """What has become faster or slower: cases that both have, by median.

    A change is marked where the quartiles of old and new do not overlap. Ratios to the dense cache
    are compared too: they say the same on a machine that is busier than it was.
    """
    before = {row.case: row for row in old}
    both = [(before[row.case], row) for row in new if row.case in before]
    lines = []
    for was, now in both:
        change = now.median_s / was.median_s
        apart = abs(now.median_s - was.median_s) > (now.iqr_s + was.iqr_s) / 2
        mark = "" if not apart else "faster" if change < 1 else "slower"
        lines.append(
            (
                now.test,
                now.policy,
                f"{now.context:,}",
                str(now.batch),
                f"{was.median_s * _MS:.3g} ± {was.iqr_s * _MS:.2g}",
                f"{now.median_s * _MS:.3g} ± {now.iqr_s * _MS:.2g}",
                f"{change:.2f}",
                mark,
                f"{was.ratio:.2f} → {now.ratio:.2f}",
                f"{now.held_bytes / max(was.held_bytes, 1):.3f}",
            )
        )
    columns = (
        *("test", "policy", "context", "rows", "old ms", "new ms", "new/old", "", "x dense"),
        "x bytes",
    )
    notes = [f"{len(both)} cases in both; {len(old) - len(both)} only in the old, "
             f"{len(new) - len(both)} only in the new"]  # fmt: skip
    if both:
        changes = [math.log(now.median_s / was.median_s) for was, now in both]
        notes.append(f"new/old, median over cases: {math.exp(median(changes)):.2f}")
    notes += [f"old: {note}" for note in setup_notes(old)[:2]]
    notes += [f"new: {note}" for note in setup_notes(new)[:2]]
    return [TextTable("old and new", columns, tuple(lines), tuple(notes), num_text=2)]

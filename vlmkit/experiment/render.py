"""A comparison written for people and for programs: terminal, Markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vlmkit.experiment.comparison import ArmCost, ArmScore, Comparison
from vlmkit.experiment.tables import TextTable, narrow, text_tables
from vlmkit.tracing.labels import plain

_WIDE = 170  # columns; with fewer, what arms differ in stands above the numbers
_MARKDOWN = re.compile(r"([\\`*<>\[\]|]|(?<!\w)_|_(?!\w))")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "[": "{[}", "<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "–": "--", "×": r"$\times$",
}  # fmt: skip


def to_terminal(comparison: Comparison, width: int) -> Group:
    """Tables for a rich console of ``width`` columns.

    Example:
        >>> from rich.console import Console
        >>> from vlmkit.experiment.compare import compare
        >>> from vlmkit.experiment.runinfo import RunInfo
        >>> comparison = compare([(RunInfo(name="r", arms={"a": {}}, metrics=[]), [])])
        >>> Console(width=80).print(to_terminal(comparison, 80))  # doctest: +ELLIPSIS
        arms...
    """
    return tables_to_terminal(text_tables(comparison) if width >= _WIDE else narrow(comparison))


def tables_to_terminal(tables: Sequence[TextTable]) -> Group:
    """Any tables for a rich console."""
    parts: list[Any] = []
    for table in tables:
        parts += [Text(plain(table.title), "bold"), _rich_table(table)]
        parts += [Padding(Text(plain(note), "dim"), (0, 0, 0, 1)) for note in table.notes]
        parts.append(Text())
    return Group(*parts[:-1])


def to_markdown(comparison: Comparison) -> str:
    """GitHub-flavoured tables."""
    return tables_to_markdown(text_tables(comparison))


def tables_to_markdown(tables: Sequence[TextTable]) -> str:
    """Any tables, GitHub-flavoured."""
    lines: list[str] = []
    for table in tables:
        lines += [f"### {_markdown(table.title)}", "", _markdown_row(table.columns, 0)]
        marks = [":--" if place < table.num_text else "--:" for place in range(len(table.columns))]
        lines.append(f"| {' | '.join(marks)} |")
        lines += [_markdown_row(row, table.num_text) for row in table.rows]
        lines.append("")
        for note in table.notes:
            lines += [_markdown(note), ""]
    return "\n".join(lines)


def to_latex(comparison: Comparison) -> str:
    """Tables for the ``booktabs`` package, notes in the caption."""
    return tables_to_latex(text_tables(comparison))


def tables_to_latex(tables: Sequence[TextTable]) -> str:
    """Any tables for the ``booktabs`` package."""
    lines: list[str] = []
    for table in tables:
        words = ["l", r"p{0.3\linewidth}"][: table.num_text]
        kinds = "".join(words) + "r" * (len(table.columns) - table.num_text)
        caption = " ".join([f"{table.title}.", *table.notes])
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}"]
        lines += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
        lines += [_latex_row(table.columns), r"\midrule", *map(_latex_row, table.rows)]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def to_csv(comparison: Comparison) -> str:
    """One line per metric and arm, numbers as they are; an empty field is not known."""
    lines = [
        {"metric": metric.metric, **_csv_score(row), **_csv_cost(cost)}
        for metric in comparison.metrics
        for row, cost in zip(metric.rows, comparison.arms, strict=True)
    ]
    return lines_to_csv(lines)


def lines_to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines of named values; an empty field is not known."""
    names = dict.fromkeys(name for line in lines for name in line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def to_json(comparison: Comparison) -> str:
    """Everything that was computed, indented."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2).decode()


def to_plain(comparison: Comparison, width: int = 100) -> str:
    """The terminal's tables without colours."""
    return group_to_plain(to_terminal(comparison, width), width)


def group_to_plain(group: Group, width: int = 100) -> str:
    """What a console of some width shows, without colours."""
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(group)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "text": to_plain,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}


def _rich_table(table: TextTable) -> Table:
    shown = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=True)
    for place, column in enumerate(table.columns):
        is_text = place < table.num_text
        shown.add_column(
            Text(plain(column)),
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=not is_text and "[" not in "".join(row[place] for row in table.rows),
        )
    for row in table.rows:
        cells = [plain(cell) for cell in row]
        words, numbers = cells[: table.num_text], cells[table.num_text :]
        shown.add_row(*map(Text, [*words, *(cell.replace(", ", ",\u00a0") for cell in numbers)]))
    return shown


def _markdown_row(cells: tuple[str, ...], num_text: int) -> str:
    shown = [_markdown(cell) if place < num_text else cell for place, cell in enumerate(cells)]
    return f"| {' | '.join(shown)} |"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", plain(text))


def _latex_row(cells: tuple[str, ...]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in plain(text))


def _csv_score(row: ArmScore) -> dict[str, Any]:
    low, high = row.interval or (None, None)
    difference_low, difference_high = row.difference_interval or (None, None)
    line: dict[str, Any] = {
        "arm": row.arm,
        "samples": row.samples,
        "responses": row.responses,
        "score": row.score,
        "score_low": low,
        "score_high": high,
        "difference": row.difference,
        "difference_low": difference_low,
        "difference_high": difference_high,
        "pairs": row.pairs,
        "p": row.p,
        "p_holm": row.p_holm,
        "test": row.test,
        "detectable": row.detectable,
    }
    line |= {f"pass@{k}": value for k, value in row.pass_at.items()}
    line |= {f"majority@{k}": value for k, value in row.majority_at.items()}
    return line | {f"summary.{name}": value for name, value in row.summary.items()}


def _csv_cost(cost: ArmCost) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(cost)
    fields["differs"] = msgspec.json.encode(cost.differs).decode()
    del fields["arm"]
    return fields

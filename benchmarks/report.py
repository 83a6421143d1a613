"""Results on disk: a Markdown table with all that it belongs to, and a picture."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.machine import commit, hardware, hardware_slug, packages, settings

RESULTS = Path(__file__).parent / "results"


class Figure(NamedTuple):
    """A picture: lines over numbers, or bars beside names."""

    kind: Literal["lines", "bars"]
    x_label: str
    y_label: str
    series: dict[str, list[tuple[Any, float]]]


class Report(NamedTuple):
    """A table, and how it was made."""

    theme: str
    command: str
    config: dict[str, Any]
    headings: Sequence[str]
    rows: list[list[str]]


def markdown(headings: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Return a table; without headings its rows alone.

    Example:
        >>> print(markdown(("a", "b"), [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [] if headings is None else [_line(headings), "|" + "---|" * len(headings)]
    return "\n".join([*lines, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def save(report: Report, figure: Figure, folder: Path = RESULTS) -> Path:
    """Write ``THEME-HARDWARE-DATE.md`` and ``.png``; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    today = dt.date.today().isoformat()
    path = folder / f"{report.theme}-{hardware_slug()}-{today}.md"
    facts = {
        "command": report.command,
        "config": report.config,
        "commit": commit(),
        "hardware": hardware(),
        "packages": packages(),
        "environment": settings(),
    }
    picture = path.with_suffix(".png")
    draw(figure, picture)
    text = [f"# {report.theme}, {today}", markdown(report.headings, report.rows)]
    text += [f"![{report.theme}]({picture.name})", f"```json\n{json.dumps(facts, indent=2)}\n```"]
    path.write_text("\n\n".join(text) + "\n")
    return path


def draw(figure: Figure, path: Path) -> None:
    """Draw a picture with matplotlib."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    height = 4.0
    if figure.kind == "bars":
        height = 1.5 + 0.3 * sum(map(len, figure.series.values()))
    drawn, axes = plt.subplots(figsize=(7, height), layout="constrained")
    for name, points in figure.series.items():
        places, values = [x for x, _ in points], [y for _, y in points]
        if figure.kind == "bars":
            axes.barh(places[::-1], values[::-1], label=name)
            axes.axvline(1, color="black", linewidth=1)
            axes.set_xscale("log")
        else:
            axes.plot(places, values, marker="o", label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    if figure.kind == "lines":
        axes.legend()
        axes.grid(alpha=0.3)
    drawn.savefig(path, dpi=120)
    plt.close(drawn)

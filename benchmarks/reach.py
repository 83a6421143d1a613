"""How fast vlmkit has to be, and how fast it is: one table, each line with its target.

    python -m benchmarks.reach
    python -m benchmarks.reach --only float32 --rounds 5
    python -m benchmarks.reach --save

Systems run in processes of their own and take turns (A B B A); figures are medians over the rounds,
ratios medians of the rounds' ratios. Beside each figure stands what limits it: products per
second or bytes per second, as this machine reached them in the same run. Peers run as installed;
an item whose peer is not installed says so. mlx-vlm as installed is slow on a Linux CPU: where one
call of it takes a minute, it is taken once. Random checkpoints are written once to the folder
for temporary files. Nothing else should run on the machine: the load average is in the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.case import ROOT
from benchmarks.machine import commit, load_average
from benchmarks.random_checkpoint import SIZES
from benchmarks.reach_items import ITEMS, Line, Options
from benchmarks.report import Figure, Report, markdown, save
from benchmarks.worker import is_installed

HEADINGS = ("item", "what", "vlmkit", "other", "ratio", "target", "reached", "limit", "load")


def measure(name: str, options: Options) -> tuple[list[Line], list[list[str]]]:
    """Measure one item; returns its lines and its rows of the table."""
    item = ITEMS[name]
    missing = [toolkit for toolkit in item.needs if not is_installed(toolkit)]
    if missing:
        text = f"needs {', '.join(missing)}: pip install -e '.[parity]'"
        return [], [[name, text, *[""] * 7]]
    lines = list(item.measure(options))
    return lines, [row(name, line) for line in lines]


def row(name: str, line: Line) -> list[str]:
    """Say a line in the table's words."""
    sign = "≥" if line.at_least else "≤"
    reached = "yes" if line.is_reached else "**no**"
    ours = f"{line.ours:.3g} {line.unit}".strip()
    other = "" if line.other is None else f"{line.other:.3g} {line.unit}".strip()
    cells = [name, line.what, ours, other, f"{line.ratio:.3g}", f"{sign} {line.target:.3g}"]
    return [*cells, reached, line.limit, load_average()]


def chart(lines: list[Line]) -> Figure:
    """How far each line is beyond its target: above 1 it is reached."""
    margins = [
        line.ratio / line.target if line.at_least else line.target / max(line.ratio, 0.01)
        for line in lines
    ]
    return Figure(
        kind="bars",
        x_label="ratio to the target (1: just reached)",
        y_label="",
        series={"reach": [(line.what, value) for line, value in zip(lines, margins, strict=True)]},
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=ITEMS, default=list(ITEMS), metavar="ITEM")
    parser.add_argument("--rounds", type=int, default=3, help="of each item (3)")
    parser.add_argument("--tokens", type=int, default=16, help="new tokens where it is free (16)")
    parser.add_argument("--size", choices=SIZES, help="of all checkpoints, for a trial")
    parser.add_argument("--root", type=Path, default=ROOT, help=f"for checkpoints ({ROOT})")
    parser.add_argument("--save", action="store_true", help="a file under benchmarks/results")
    options = parser.parse_args()
    given = Options(options.rounds, options.tokens, options.size, options.root)
    print(f"commit {commit()}, load {load_average()}", flush=True)
    print(markdown(HEADINGS, []), flush=True)
    lines, rows = [], []
    for name in options.only:
        found, shown = measure(name, given)
        lines += found
        rows += shown
        print(markdown(None, shown), flush=True)
    if options.save:
        config = {**vars(options), "root": str(options.root)}
        report = Report("reach", "python -m benchmarks.reach", config, HEADINGS, rows)
        print(f"wrote {save(report, chart(lines))}")


if __name__ == "__main__":
    main()

"""Draw a run as an SVG: each arm's score, and its difference to the baseline, with intervals.

python -m experiments.plot runs/thinking_budget experiments/thinking_budget/plot.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from html import escape
from pathlib import Path

from vlmkit.experiment.compare import compare
from vlmkit.experiment.reading import read_scores
from vlmkit.experiment.reopen import run_info
from vlmkit.experiment.report.plots import Bar, Forest, difference_forest, score_forest
from vlmkit.experiment.store import RECORDS

ROW = 22  # pixels
CHARACTER = 6.8  # width of one, about
PANEL = 300
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.grid { stroke: #d8dee4; }
.zero { stroke: #59636e; stroke-dasharray: 3 3; }
.interval { stroke: #0969da; stroke-width: 2; }
.mark { fill: #0969da; }
.baseline .interval { stroke: #59636e; } .baseline .mark { fill: #59636e; }
.paper { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .grid { stroke: #30363d; } .zero { stroke: #9198a1; }
  .interval { stroke: #58a6ff; } .mark { fill: #58a6ff; }
  .baseline .interval { stroke: #9198a1; } .baseline .mark { fill: #9198a1; }
  .paper { fill: #0d1117; }
}
"""


def draw(forests: list[Forest], name: str) -> str:
    """Put the panels side by side; arms are named once, at the left.

    Args:
        forests: of the same arms, each perhaps without some.
        name: what a screen reader says of the picture.
    """
    arms = list(dict.fromkeys(bar.arm for forest in forests for bar in forest.bars))
    left = 16 + CHARACTER * max(map(len, arms))
    height = 34 + ROW * len(arms) + 30
    width = left + (PANEL + 24) * len(forests)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" aria-label="{escape(name)}">',
        f"<style>{STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    for row, arm in enumerate(arms):
        parts.append(f'<text x="8" y="{_middle(row) + 4}">{escape(arm)}</text>')
    for place, forest in enumerate(forests):
        parts += _panel(forest, arms, left + place * (PANEL + 24), height)
    return "\n".join([*parts, "</svg>", ""])


def _panel(forest: Forest, arms: list[str], left: float, height: int) -> Iterator[str]:
    def x(at: float) -> str:
        return f"{left + PANEL * at / 100:.1f}"

    top, bottom = 28, height - 26
    yield f'<text class="title" x="{left:.1f}" y="18">{escape(forest.title)}</text>'
    for tick in forest.ticks:
        yield f'<line class="grid" x1="{x(tick.at)}" x2="{x(tick.at)}" y1="{top}" y2="{bottom}"/>'
        yield f'<text x="{x(tick.at)}" y="{height - 10}" text-anchor="middle">{tick.label}</text>'
    if forest.line is not None:
        at = x(forest.line)
        yield f'<line class="zero" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>'
    for bar in forest.bars:
        yield _bar(bar, x(bar.low), x(bar.high), x(bar.at), _middle(arms.index(bar.arm)))


def _bar(bar: Bar, low: str, high: str, at: str, y: int) -> str:
    group = '<g class="baseline">' if bar.is_reference else "<g>"
    line = f'<line class="interval" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
    return f'{group}{line}<circle class="mark" cx="{at}" cy="{y}" r="4"/></g>'


def _middle(row: int) -> int:
    return 34 + ROW * row + ROW // 2


def plot_run(folder: Path) -> str:
    """The first metric of a run directory as an SVG."""
    info = run_info(folder)
    comparison = compare([(info, read_scores(folder / RECORDS))])
    metric = comparison.metrics[0]
    panels = [score_forest(metric, comparison), difference_forest(metric, comparison)]
    return draw([panel for panel in panels if panel is not None], f"{info.name}: {metric.metric}")


def main() -> None:
    """Draw a run directory into a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("file", type=Path, help="the SVG file")
    args = parser.parse_args()
    args.file.write_text(plot_run(args.run), encoding="utf-8")


if __name__ == "__main__":
    main()

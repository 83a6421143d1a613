"""Run the study of KV caches: two kv-evals, their tables and their plots.

    python -m experiments.kv_cache.study
    python -m experiments.kv_cache.study --only variants limits.samples=8

A run that was stopped goes on. Run directories are runs/kv_cache/NAME; NAME.md and NAME.svg are
written beside this file.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from experiments.plot import STYLE
from vlmkit.experiment.kv_eval.outcome import Outcome, read_outcome
from vlmkit.experiment.kv_eval.page import write_page
from vlmkit.experiment.kv_eval.planning import load_kv_eval
from vlmkit.experiment.kv_eval.run import run_kv_eval
from vlmkit.experiment.kv_eval.summary import PolicySummary
from vlmkit.experiment.kv_eval.tables import shown_name, small
from vlmkit.experiment.render import tables_to_markdown
from vlmkit.experiment.tables import TextTable, number, with_interval

FOLDER = Path(__file__).parent
STUDIES = ("variants", "album")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 420, 64, 44
LEAST_KL = 1e-6


def table(outcome: Outcome) -> TextTable:
    """One line per policy: what it holds, how far it is, and what it gets right."""
    scores = {}
    if outcome.comparison is not None:
        [metric] = outcome.comparison.metrics
        scores = {row.arm: with_interval(row.score, row.interval) for row in metric.rows}
    rows = tuple(
        (
            shown_name(row),
            number(row.bytes_ratio),
            _bits(row),
            "–" if row.kl is None else small(row.kl.mean),
            "–" if row.kl is None else small(row.kl.p99),
            *(_mean(row, name) for name in ("prompt image", "prompt text", "answer")),
            number(row.agreement),
            "–" if row.running is None else f"{row.running.exact:.2f}",
            scores.get(row.policy, "–"),
        )
        for row in outcome.policies
    )
    columns = (
        *("policy", "x bytes", "bits K/V", "KL", "p99", "at images", "at text", "in answers"),
        *("same top-1", "same response", "right"),
    )
    return TextTable("", columns, rows)


def _bits(row: PolicySummary) -> str:
    if row.key_bits is None or row.value_bits is None:
        return "–"
    keys, values = f"{row.key_bits:.4g}", f"{row.value_bits:.4g}"
    return keys if keys == values else f"{keys}/{values}"


def _mean(row: PolicySummary, name: str) -> str:
    spread = row.slices.get(name)
    return "–" if spread is None else small(spread.mean)


def picture(policies: Sequence[PolicySummary], title: str) -> str:
    """Bytes against KL as an SVG; what no other policy beats in both is joined by a line."""
    points = [
        (row.bytes_ratio, max(row.kl.mean, LEAST_KL), row.policy)
        for row in policies
        if row.kl is not None and row.bytes_ratio is not None and not row.is_baseline
    ]
    most = max(ratio for ratio, _, _ in points) * 1.05
    low = math.floor(math.log10(min(kl for _, kl, _ in points)))
    high = math.ceil(math.log10(max(kl for _, kl, _ in points)))

    def place(ratio: float, kl: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 130) * ratio / most
        up = (math.log10(kl) - low) / max(high - low, 1)
        return across, 12 + (HEIGHT - BOTTOM - 12) * (1 - up)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE} .front {{ fill: none; stroke: #59636e; stroke-dasharray: 4 3; }}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    for exponent in range(low, high + 1):
        _, y = place(0, 10.0**exponent)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{exponent}</text>')
    for tenth in range(int(most * 10) + 1):
        x, y = place(tenth / 10, 10.0**low)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{tenth / 10}</text>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">bytes held, x dense</text>'
        f'<text x="12" y="{HEIGHT / 2}" transform="rotate(-90 12 {HEIGHT / 2})" '
        'text-anchor="middle">KL to dense, nats</text>'
    )
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(r, kl) for r, kl in _front(points)))
    parts.append(f'<polyline class="front" points="{joined}"/>')
    for ratio, kl, name in points:
        x, y = place(ratio, kl)
        parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for ratio, kl, _ in sorted(points):
        if not found or kl < found[-1][1]:
            found.append((ratio, kl))
    return found


def run(name: str, overrides: Sequence[str], out: Path, written: Path) -> Outcome:
    """Run one kv-eval or what is left of it, and write its table and plot."""
    study = load_kv_eval(FOLDER / f"{name}.yaml", overrides=overrides)
    folder = out / name
    run_kv_eval(study, folder, command=["python", "-m", "experiments.kv_cache.study"])
    outcome = read_outcome(folder)
    write_page(folder, outcome)
    text = tables_to_markdown([table(outcome)])
    (written / f"{name}.md").write_text(re.sub(r"^#+ *\n+", "", text).strip() + "\n")
    (written / f"{name}.svg").write_text(picture(outcome.policies, f"policies of {name}"))
    return outcome


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="All kinds of KV cache on the same tokens.")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as of vlmkit kv-eval")
    parser.add_argument("--only", choices=STUDIES, action="append", help="one of them")
    parser.add_argument("--out", type=Path, default=Path("runs/kv_cache"), help="run directories")
    parser.add_argument("--written", type=Path, default=FOLDER, help="tables and plots")
    options = parser.parse_intermixed_args(argv)
    for name in options.only or STUDIES:
        outcome = run(name, options.overrides, options.out, options.written)
        print(tables_to_markdown([table(outcome)]))


if __name__ == "__main__":
    main()

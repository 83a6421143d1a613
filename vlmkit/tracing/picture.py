"""One token's distribution on its way through the chain, as a picture: one panel per stage."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vlmkit.errors import VlmkitError
from vlmkit.files import write_file
from vlmkit.tracing.fonts import Fonts, drawable, find_fonts
from vlmkit.tracing.labels import MAX_SHOWN, plain, shorten, shorten_left, token_label, visible
from vlmkit.tracing.records import StageRecord, Trace, TraceStep
from vlmkit.tracing.summary import context_text, shown_tokens
from vlmkit.tracing.table import log_number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
DPI = 150
_MAX_PER_LINE = 4
_MAX_OWN = 16  # tokens by the model's own rank; more would not be readable
_MAX_LABEL = 18  # characters
# inches
_LABELS, _PANEL, _GAP, _EDGE = 1.55, 2.3, 0.12, 0.15
_ROW, _TITLE, _FOOT, _HEAD_LINE = 0.2, 0.5, 0.4, 0.17
_MIN_WIDTH = 7.0  # of the legend
_BAR, _TAKEN, _DRAWN, _REMOVED = "#7a9cc6", "#e07b1a", "#8a5fb0", "#c0201c"
_OTHERS, _ENTERING, _FAINT, _GRID = "#c9c9c9", "#777777", "#666666", "#ececec"


class _Row(NamedTuple):
    """One token in all panels."""

    label: str
    probs: list[float | None]  # per stage; None: removed
    removed_by: int | None
    color: str


def check_picture(path: str | os.PathLike[str]) -> None:
    """Check that a picture can be drawn, and written under this name.

    Raises:
        VlmkitError: the ending names no known format, or matplotlib is not installed.

    Example:
        >>> check_picture("chain.svg")
    """
    if Path(path).suffix.lower() not in ENDINGS:
        raise VlmkitError(f"{path}: a picture's name ends with {', '.join(ENDINGS)}")
    if find_spec("matplotlib") is None:
        raise VlmkitError(f"{path}: a picture needs matplotlib: pip install 'vlmkit[plot]'")


def save_picture(trace: Trace, position: int, path: str | os.PathLike[str]) -> None:
    """Draw one step into a PNG, SVG or PDF file, by the file's ending.

    Raises:
        VlmkitError: another ending, no matplotlib, or the file cannot be written.
    """
    check_picture(path)
    import matplotlib as mpl

    kind = Path(path).suffix.lower().removeprefix(".")
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same trace, the same file
    buffer = io.BytesIO()
    with mpl.rc_context():  # whatever somebody's matplotlibrc says
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "vlmkit"})
        figure = draw_step(trace, position)
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=dates.get(kind))
    write_file(path, buffer.getvalue())


def draw_step(trace: Trace, position: int) -> Figure:
    """Draw the panels of one step; the rows are tokens in the model's own order.

    Each bar is a token's probability after the stage, its outline the probability before it; ×
    marks a token that the stage removed. Probabilities have one scale in all panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step = trace.steps[position]
    fonts = find_fonts()
    rows = _rows(trace, step, fonts)
    num_lines = -(-len(step.stages) // _MAX_PER_LINE)
    per_line = -(-len(step.stages) // num_lines)
    panel_height = _ROW * len(rows)
    width = max(_MIN_WIDTH, _EDGE + _LABELS + per_line * (_PANEL + _GAP) + _EDGE)
    head = _head_lines(trace, step, width, fonts)
    above = 0.25 + _HEAD_LINE * len(head)
    height = above + num_lines * (_TITLE + panel_height) + _FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    largest = max(prob or 0.0 for row in rows for prob in row.probs)
    for place, stage in enumerate(step.stages):
        line, column = divmod(place, per_line)
        left = _EDGE + _LABELS + column * (_PANEL + _GAP)
        top = above + line * (_TITLE + panel_height) + _TITLE
        axes = figure.add_axes(
            (left / width, 1 - (top + panel_height) / height, _PANEL / width, panel_height / height)
        )
        _draw_panel(axes, rows, place, largest or 1.0)
        _write_title(axes, stage, place, fonts)
        _write_labels(axes, rows if column == 0 else (), fonts)
    _write_head(figure, head, fonts)
    _write_legend(figure, step, fonts)
    return figure


def _rows(trace: Trace, step: TraceStep, fonts: Fonts) -> list[_Row]:
    shown = shown_tokens(step, num_own=min(trace.header.top_n, _MAX_OWN))
    rows = []
    for index in shown:
        token = step.tokens[index]
        probs = [_prob(stage.tracked[index]) for stage in step.stages]
        color = _BAR
        if token.id == step.token_id:
            color = _TAKEN
        elif token.id == step.sampled_id:
            color = _DRAWN
        label = shorten(drawable(token_label(token.id, token.text, _MAX_LABEL), fonts), _MAX_LABEL)
        rows.append(_Row(label, probs, token.removed_by, color))
    sums = [sum(row.probs[place] or 0.0 for row in rows) for place in range(len(step.stages))]
    others: list[float | None] = [
        max(0.0, 1.0 - known) if stage.num_kept > _num_kept(rows, place) else None
        for place, (stage, known) in enumerate(zip(step.stages, sums, strict=True))
    ]
    if any(others):
        places = [place for place, prob in enumerate(others) if prob is not None]
        gone = places[-1] + 1
        rows.append(_Row("all others", others, gone if gone < len(others) else None, _OTHERS))
    return rows


def _num_kept(rows: Sequence[_Row], place: int) -> int:
    return sum(row.probs[place] is not None for row in rows)


def _prob(logprob: float | None) -> float | None:
    return None if logprob is None else math.exp(logprob)


def _draw_panel(axes: Axes, rows: Sequence[_Row], place: int, largest: float) -> None:
    """Bars, outlines of what entered, values and ×."""
    room = 1.42 * largest  # right of the longest bar there is place for its value
    axes.set_xlim(0, room)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color("#999999")
    backing = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for height, row in enumerate(rows):
        prob = row.probs[place]
        before = row.probs[place - 1] if place else None
        axes.axhline(height, color=_GRID, linewidth=0.8, zorder=0)
        if prob is not None:
            axes.barh(height, prob, height=0.72, color=row.color, zorder=2)
        if before is not None and abs(before - (prob or 0.0)) > 0.005 * room:
            axes.barh(
                height, before, height=0.72, fill=False, edgecolor=_ENTERING, linewidth=0.7,
                linestyle=(0, (2, 1.5)), zorder=3,
            )  # fmt: skip
        end = max(prob or 0.0, before or 0.0) + 0.025 * room
        if prob is not None:
            axes.text(
                end, height, percent(prob), fontsize=8, va="center", color="#222222",
                weight="bold" if row.color == _TAKEN else "normal", bbox=backing, zorder=4,
            )  # fmt: skip
        elif row.removed_by == place:
            axes.text(
                end, height, "×", fontsize=11, weight="bold", color=_REMOVED, va="center", zorder=4
            )


def _write_title(axes: Axes, stage: StageRecord, place: int, fonts: Fonts) -> None:
    name = shorten(drawable(visible(stage.name), fonts), 24)
    kept = f"{stage.num_kept:,} kept".replace(",", " ")
    facts = f"entropy {stage.entropy_nats:.2f} · {kept}"
    if stage.num_removed:
        facts += f" · cut {percent(stage.removed_mass)}"
    axes.annotate(
        f"{place}  {name}" if place else name, (0, 1), (0, 16), "axes fraction", "offset points",
        fontsize=10, weight="bold", parse_math=False, family=fonts.sans,
    )  # fmt: skip
    axes.annotate(facts, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8, color=_FAINT)


def _write_labels(axes: Axes, rows: Sequence[_Row], fonts: Fonts) -> None:
    for height, row in enumerate(rows):
        highlighted = row.color in (_TAKEN, _DRAWN)
        axes.annotate(
            row.label, (0, height), (-5, 0), ("axes fraction", "data"), "offset points",
            ha="right", va="center", fontsize=9, family=fonts.mono, parse_math=False,
            color=row.color if highlighted else _FAINT if row.color == _OTHERS else "black",
            weight="bold" if highlighted else "normal", annotation_clip=False,
        )  # fmt: skip


def _head_lines(trace: Trace, step: TraceStep, width: float, fonts: Fonts) -> list[str]:
    """What the picture shows, in lines that fit into ``width`` inches."""
    label = token_label(step.token_id, step.text, 30)
    how = "was forced" if step.forced else "was drawn"
    own = log_number(step.stages[0].token_logprob)
    title = f"Step {step.position}: {label} {how} (the model's own logprob {own})"
    lines = [f"model: {plain(trace.header.model[:MAX_SHOWN])}, seed {trace.header.seed}"]
    before = plain(context_text(trace.steps, step.position))
    if before:
        lines.append(f"after “{shorten_left(drawable(before, fonts), int(width / 0.08) - 8)}”")
    return [
        shorten(drawable(title, fonts), int(width / 0.115)),
        *(shorten(drawable(line, fonts), int(width / 0.08)) for line in lines),
    ]


def _write_head(figure: Figure, lines: Sequence[str], fonts: Fonts) -> None:
    width, height = figure.get_size_inches()
    common: dict[str, Any] = {"parse_math": False, "va": "top", "family": fonts.sans}
    x = _EDGE / width
    figure.text(x, 1 - 0.12 / height, lines[0], fontsize=12, weight="bold", **common)
    rest = "\n".join(lines[1:])
    figure.text(x, 1 - 0.38 / height, rest, fontsize=8.5, color=_FAINT, **common)


def _write_legend(figure: Figure, step: TraceStep, fonts: Fonts) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [
        Patch(color=_TAKEN, label="token taken"),
        Patch(color=_BAR, label="probability after the stage"),
        Patch(fill=False, edgecolor=_ENTERING, linestyle=(0, (2, 1.5)), label="before it"),
        Line2D([], [], color=_REMOVED, marker="$×$", linestyle="", label="removed by it"),
    ]
    if step.sampled_id != step.token_id:
        handles.insert(1, Patch(color=_DRAWN, label="token drawn, but replaced"))
    figure.legend(
        handles=handles, loc="lower left", ncols=len(handles), frameon=False, fontsize=8,
        bbox_to_anchor=(0, 0), handlelength=1.2, columnspacing=1.4, borderaxespad=0.5,
        prop={"family": fonts.sans, "size": 8},
    )  # fmt: skip

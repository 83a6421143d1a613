"""A trace in the terminal: one row per token as they come, or all stages of one token.

Everything is a ``rich`` text: a console prints it with colours or without.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from vlmkit.tracing.labels import (
    MAX_SHOWN,
    columns,
    plain,
    shorten,
    shorten_left,
    token_label,
    visible,
)
from vlmkit.tracing.records import Trace, TraceEnd, TraceHeader, TraceStep
from vlmkit.tracing.summary import context_text, removed_share, shown_tokens, strictest_stage

_HEAD, _TAKEN, _FORCED, _REMOVED, _FAINT = "bold", "bold green", "bold yellow", "red", "dim"
_GAP = "  "
_MAX_NAME = 11  # columns of a stage's name above its numbers
_MAX_BY = 15
_MAX_TOKEN = 20
_MIN_TOKEN = 8
_NARROW = 70  # columns; with fewer, what stands beside the token is packed closer
LEGEND = (
    "logprob: the model's own. H: entropy in nats, own and after the chain.",
    "kept: tokens left. cut: probability removed, mostly by this stage.",
)


class Cell(NamedTuple):
    """What stands in one place of a table."""

    text: str
    style: str = ""


def percent(prob: float) -> str:
    """Write a probability in at most six characters; only certainty is ``100%``.

    >>> [percent(p) for p in (1.0, 0.99999, 0.25, 0.0123, 3e-17, 0.0)]
    ['100%', '>99.9%', '25.0%', '1.23%', '3e-17', '0%']
    """
    if prob in (0.0, 1.0):
        return f"{prob:.0%}"
    if prob >= 0.9995:
        return ">99.9%"
    if prob >= 0.0995:
        return f"{prob:.1%}"
    return f"{prob:.2%}" if prob >= 0.00005 else f"{prob:.0e}"


def log_number(value: float | None) -> str:
    """Write a log-probability; None is −∞.

    >>> log_number(-0.25), log_number(-1e30), log_number(None)
    ('-0.25', '-1e+30', '-∞')
    """
    if value is None:
        return "-∞"
    return f"{min(round(value, 2), -0.0) + 0.0:.2f}" if value > -1000 else f"{value:.0e}"


def run_head(header: TraceHeader, width: int) -> Text:
    """What was run, in two lines, and above the rows what they mean."""
    prompt = plain(header.prompt[-MAX_SHOWN:])
    text = Text()
    model = plain(header.model[:MAX_SHOWN])
    text.append(shorten(f"model: {model}, seed {header.seed}", width) + "\n")
    text.append(f"prompt: {shorten_left(prompt, width - 8)}")
    return text


def run_columns(width: int) -> Text:
    """The line above the rows."""
    names = ("step", "token", "logprob", "H own", "H end", "kept", "cut", "mostly by")
    return _run_line([Cell(name, _HEAD) for name in names], width)


def step_row(step: TraceStep, width: int) -> Text:
    """One token: its log-probability, the entropy before and after the chain, what was cut."""
    first, last = step.stages[0], step.stages[-1]
    widths = _run_widths(width)
    label = token_label(step.token_id, step.text, widths[1] - 2 * step.forced)
    stage = strictest_stage(step)
    cells = [
        Cell(str(step.position)),
        Cell(f"! {label}", _FORCED) if step.forced else Cell(label, _TAKEN),
        Cell(log_number(first.token_logprob)),
        Cell(f"{first.entropy_nats:.2f}"),
        Cell(f"{last.entropy_nats:.2f}"),
        Cell(str(last.num_kept)),
        Cell("–" if stage is None else percent(removed_share(step)), _REMOVED if stage else _FAINT),
        Cell("" if stage is None else shorten(visible(stage), widths[-1])),
    ]
    return _run_line(cells, width)


def run_foot(end: TraceEnd | None, width: int, *, num_steps: int, any_forced: bool) -> Text:
    """How the run ended, and what the columns mean."""
    text = Text()
    tokens = f"{num_steps} token{'' if num_steps == 1 else 's'}"
    if end is None:
        text.append(f"{tokens}; the run was interrupted\n")
    else:
        matched = "" if end.matched_stop is None else f", {end.matched_stop!r}"
        kind = "" if end.finish_kind is None else f" ({end.finish_kind}{matched})"
        reason = f"{tokens}; finish reason: {end.finish_reason}{kind}"
        text.append(plain(reason[:MAX_SHOWN]) + "\n")
    forced = ("!: forced by a stopping criterion.",) if any_forced else ()
    lines = [line for sentence in (*LEGEND, *forced) for line in textwrap.wrap(sentence, width)]
    text.append("\n".join(lines), _FAINT)
    return text


def step_view(trace: Trace, position: int, width: int) -> Text:
    """All stages of one token: tokens down, stages across, × where a stage removed a token.

    Stages that don't fit into ``width`` columns follow below.
    """
    step = trace.steps[position]
    text = _step_head(trace, step, width)
    shown = shown_tokens(step, num_own=trace.header.top_n)
    left = [Cell("token", _HEAD), *(_token_cell(step, index) for index in shown)]
    left += [Cell("entropy", _FAINT), Cell("kept", _FAINT), Cell("removed", _FAINT)]
    stages = [_stage_column(step, place, shown) for place in range(len(step.stages))]
    fate = [Cell("removed by", _HEAD), *(_fate_cell(step, index) for index in shown)]
    fate += [Cell("")] * 3
    blocks = _blocks([*stages, fate], width - _width_of(left))
    if blocks[-1] == [fate]:  # the × says the same
        blocks.pop()
    for block in blocks:
        table = [left, *block]
        widths = [_width_of(column) for column in table]
        kinds = "l" + "".join("l" if column is fate else "r" for column in block)
        text.append("\n")
        for number, row in enumerate(zip(*table, strict=True)):
            if number == len(shown) + 1:
                text.append("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)) + "\n", _FAINT)
            text.append_text(_line(row, widths, kinds)).append("\n")
    text.append_text(_removals(step, width))
    text.rstrip()
    return text


def _run_widths(width: int) -> list[int]:
    fixed = [4, 7, 5, 5, 6, 6, _MAX_NAME if width < _NARROW else _MAX_BY]
    room = width - sum(fixed) - len(_run_gap(width)) * len(fixed)
    return [fixed[0], max(_MIN_TOKEN, min(room, 2 * _MAX_TOKEN)), *fixed[1:]]


def _run_gap(width: int) -> str:
    return " " if width < _NARROW else _GAP


def _run_line(cells: Sequence[Cell], width: int) -> Text:
    return _line(cells, _run_widths(width), "rlrrrrrl", _run_gap(width))


def _step_head(trace: Trace, step: TraceStep, width: int) -> Text:
    text = Text()
    room = max(_MIN_TOKEN, min(_MAX_TOKEN, width - 52))
    text.append(f"step {step.position}: ")
    text.append(token_label(step.token_id, step.text, room), _TAKEN)
    own = log_number(step.stages[0].token_logprob)
    text.append(f", token {step.token_id}, the model's own logprob {own}\n")
    if step.forced:
        drawn = next(token for token in step.tokens if token.id == step.sampled_id)
        label = token_label(drawn.id, drawn.text, room)
        text.append("! forced by a stopping criterion", _FORCED)
        text.append(f"; the sampler drew {label}\n")
    before = plain(context_text(trace.steps, step.position))
    if before:
        text.append(f"after “{shorten_left(before, width - 8)}”\n", _FAINT)
    return text


def _token_cell(step: TraceStep, index: int) -> Cell:
    token = step.tokens[index]
    mark, style = "  ", ""
    if token.id == step.token_id:
        mark, style = ("! ", _FORCED) if step.forced else ("▸ ", _TAKEN)
    elif token.id == step.sampled_id:
        mark, style = "▸ ", _TAKEN
    return Cell(mark + token_label(token.id, token.text, _MAX_TOKEN - 2), style)


def _stage_column(step: TraceStep, place: int, shown: Sequence[int]) -> list[Cell]:
    stage = step.stages[place]
    cells = [Cell(shorten(visible(stage.name), _MAX_NAME), _HEAD)]
    for index in shown:
        logprob = stage.tracked[index]
        if logprob is not None:
            taken = step.tokens[index].id == step.token_id
            cells.append(Cell(percent(math.exp(logprob)), _TAKEN if taken else ""))
        elif step.tokens[index].removed_by == place:
            cells.append(Cell("×", _REMOVED))
        else:
            cells.append(Cell("·", _FAINT))
    removed = percent(stage.removed_mass) if stage.num_removed else "–"
    return [*cells, Cell(f"{stage.entropy_nats:.2f}"), Cell(str(stage.num_kept)), Cell(removed)]


def _fate_cell(step: TraceStep, index: int) -> Cell:
    place = step.tokens[index].removed_by
    if place is None:
        return Cell("")
    return Cell(shorten(visible(step.stages[place].name), _MAX_NAME), _REMOVED)


def _removals(step: TraceStep, width: int) -> Text:
    text = Text()
    for stage in step.stages:
        if not stage.num_removed:
            continue
        most = ", ".join(
            f"{token_label(token.id, token.text, _MAX_TOKEN)} {percent(token.prob)}"
            for token in stage.removed
        )
        rest = ", …" if stage.num_removed > len(stage.removed) else ""
        plural = "" if stage.num_removed == 1 else "s"
        line = f"{visible(stage.name)} removed {stage.num_removed} token{plural}: {most}{rest}"
        text.append("\n" + shorten(line, width))
    return text


def _blocks(table: Sequence[list[Cell]], room: int) -> list[list[list[Cell]]]:
    """Cut columns into blocks that fit; a column wider than the room stands alone."""
    blocks: list[list[list[Cell]]] = [[]]
    used = 0
    for column in table:
        needed = len(_GAP) + _width_of(column)
        if blocks[-1] and used + needed > room:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += needed
    return blocks


def _width_of(column: Sequence[Cell]) -> int:
    return max(columns(cell.text) for cell in column)


def _line(cells: Sequence[Cell], widths: Sequence[int], kinds: str, gap: str = _GAP) -> Text:
    """Lay cells side by side; a kind is ``r`` for right, ``l`` for left."""
    line = Text()
    for place, (cell, width, kind) in enumerate(zip(cells, widths, kinds, strict=True)):
        padding = " " * (width - columns(cell.text))
        line.append(gap if place else "")
        line.append(padding if kind == "r" else "")
        line.append(cell.text, cell.style)
        line.append(padding if kind == "l" else "")
    line.rstrip()
    return line

"""``vlmkit trace``: what each stage did to each token's distribution, as a table and a picture."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.text import Text

from vlmkit.cli.parser import given_flags
from vlmkit.cli.terminal import wants_colors, warn
from vlmkit.errors import VlmkitError
from vlmkit.files import check_target
from vlmkit.printable import mask_secrets, printable
from vlmkit.tracing.jsonl import open_trace, read_trace
from vlmkit.tracing.picture import check_picture, save_picture
from vlmkit.tracing.records import Record, Trace, TraceEnd, TraceHeader, TraceStep
from vlmkit.tracing.summary import most_cut_step, removed_share
from vlmkit.tracing.table import percent, run_columns, run_foot, run_head, step_row, step_view

if TYPE_CHECKING:
    from vlmkit.config.run import RunConfig

_DEFAULT_TOP = 10
_PIPED_WIDTH, _MIN_WIDTH, _MAX_WIDTH = 80, 60, 120  # columns

Show = Callable[[Callable[[int], Text]], None]
"""Prints what a function makes of the number of columns there are."""


def run_trace(args: argparse.Namespace) -> None:
    """Trace a run, or show a trace that was saved; then draw a picture if asked to."""
    _check_arguments(args)
    show = _printer()
    records = _saved_records(args) if args.source is not None else _run_records(args)
    trace = _collect(records, show if args.step is None else None)
    if args.step is not None:
        _check_step(trace, args.step)
        show(lambda width: step_view(trace, args.step, width))
    if args.picture is not None:
        show(lambda width: Text(_draw(trace, args)))


def _check_arguments(args: argparse.Namespace) -> None:
    """Find what cannot work before anything is loaded."""
    if args.top is not None and args.top < 1:
        raise VlmkitError(f"--top must be at least 1, got {args.top}")
    if args.step is not None and args.step < 0:
        raise VlmkitError(f"--step must be at least 0, got {args.step}")
    if args.picture is not None:
        check_picture(args.picture)
    _check_targets(args, [name for name in (args.config, args.source) if name])
    if args.out and args.picture and os.path.realpath(args.out) == os.path.realpath(args.picture):
        raise VlmkitError(
            f"--picture {args.picture}: would write over --out {args.out}; give another name"
        )
    if args.source is not None:
        given = [word for word in (args.config, *args.overrides) if word is not None]
        given += ["--" + name.replace("_", "-") for name in given_flags(args)]
        given += ["--out"] if args.out is not None else []
        given += ["--trust-code"] if args.trust_code else []
        if given:
            raise VlmkitError(f"--from shows a saved run as it was: leave out {given[0]!r}")


def _check_targets(args: argparse.Namespace, reads: Iterable[str | Path]) -> None:
    """Refuse to write over what is read, and over what is no file."""
    files = list(reads)
    for flag, name in (("--out", args.out), ("--picture", args.picture)):
        if name is not None:
            check_target(name, files, what=flag)


def _saved_records(args: argparse.Namespace) -> Iterator[Record]:
    trace = read_trace(args.source)
    header = trace.header
    if args.top is not None:
        if args.top > header.top_n:
            raise VlmkitError(
                f"--top {args.top}: {args.source} was written with --top {header.top_n}"
            )
        header = msgspec.structs.replace(header, top_n=args.top)
    if trace.damage is not None:
        warn(f"vlmkit: warning: {trace.damage}")
    yield header
    yield from trace.steps
    if trace.end is not None:
        yield trace.end


def _run_records(args: argparse.Namespace) -> Iterator[Record]:
    """Check the config, load the model, generate; every record goes to ``--out`` first."""
    from vlmkit.backend import require_mlx

    require_mlx()
    from vlmkit.cli.run import read_question, start_run
    from vlmkit.config.reads import files_read
    from vlmkit.config.run import load_run
    from vlmkit.processors.literal import unmark
    from vlmkit.tracing.recording import trace_records

    resolved = load_run(
        args.config,
        overrides=args.overrides,
        flags=given_flags(args),
        trust_code=args.trust_code,
    )
    _check_targets(args, files_read(resolved))
    config = resolved.config
    run, results = start_run(resolved, read_question(resolved), trace=True)
    records = trace_records(
        results,
        model=config.model,
        prompt=unmark(str(run.request.prompt)),
        images=tuple(map(mask_secrets, config.images)),
        seed=config.seed,
        config=_recorded(config),
        decode=run.processor.decode,
        top_n=_DEFAULT_TOP if args.top is None else args.top,
    )
    with nullcontext(None) if args.out is None else open_trace(args.out) as write:
        for record in records:
            if write is not None:
                write(record)
            yield record


def _recorded(config: RunConfig) -> dict[str, Any]:
    """A config for a file that is passed on: without what web addresses hold of secrets."""
    values = config.model_dump(mode="json")
    return values | {name: _masked(values[name]) for name in ("images", "audio", "video")}


def _masked(sources: list[Any]) -> list[Any]:
    return [
        mask_secrets(source) if isinstance(source, str) else _masked(source) for source in sources
    ]


def _collect(records: Iterable[Record], show: Show | None) -> Trace:
    """Gather a run, showing each token's row as it comes."""
    header: TraceHeader | None = None
    steps: list[TraceStep] = []
    end: TraceEnd | None = None
    for record in records:
        if isinstance(record, TraceHeader):
            header = record
        elif isinstance(record, TraceStep):
            steps.append(record)
        else:
            end = record
        if show is not None and not isinstance(record, TraceEnd):
            show(_shown(record))
    assert header is not None  # every run has at least one result
    if show is not None:
        any_forced = any(step.forced for step in steps)
        show(lambda width: run_foot(end, width, num_steps=len(steps), any_forced=any_forced))
    return Trace(header=header, steps=steps, end=end)


def _shown(record: TraceHeader | TraceStep) -> Callable[[int], Text]:
    if isinstance(record, TraceStep):
        return lambda width: step_row(record, width)
    return lambda width: Text("\n").join([run_head(record, width), run_columns(width)])


def _check_step(trace: Trace, position: int) -> None:
    num_steps = len(trace.steps)
    if position >= num_steps:
        there = f"steps 0 to {num_steps - 1}" if num_steps else "no step"
        raise VlmkitError(f"--step {position}: the run has {there}")


def _draw(trace: Trace, args: argparse.Namespace) -> str:
    """Save the picture and say what is on it."""
    if args.step is not None:
        save_picture(trace, args.step, args.picture)
        return f"picture of step {args.step}: {args.picture}"
    position = most_cut_step(trace.steps)
    if position is None:
        raise VlmkitError(f"--picture {args.picture}: the run has no step to draw")
    save_picture(trace, position, args.picture)
    share = percent(removed_share(trace.steps[position]))
    return f"picture of step {position}, where most was removed ({share}): {args.picture}"


def _printer() -> Show:
    """Print with colours on a terminal, and with none where NO_COLOR is set."""
    console = Console(color_system="auto" if wants_colors() else None, highlight=False, emoji=False)
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else _PIPED_WIDTH
    width = min(max(width, _MIN_WIDTH), _MAX_WIDTH)

    def show(make: Callable[[int], Text]) -> None:
        text = make(width)
        if printable(text.plain) != text.plain:  # a name in it; what is shown needs no colours
            text = Text(printable(text.plain))
        with console.capture() as capture:
            console.print(text, soft_wrap=True)
        encoding = console.encoding  # what it cannot write becomes a question mark
        sys.stdout.write(capture.get().encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()

    return show

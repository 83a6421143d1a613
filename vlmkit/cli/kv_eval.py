"""``vlmkit kv-eval``: cache policies compared with a baseline, token by token."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlmkit.backend import require_mlx
from vlmkit.cli.experiment import progress_of
from vlmkit.cli.terminal import say, say_json, warn
from vlmkit.errors import VlmkitError


def run_kv_eval_command(args: argparse.Namespace) -> None:
    """Run a kv-eval, or what is left of it, and print what it found."""
    require_mlx()
    from vlmkit.experiment.kv_eval.planning import load_kv_eval
    from vlmkit.experiment.kv_eval.run import run_kv_eval

    if args.config is None:
        raise VlmkitError("no config: give a YAML file, as in vlmkit kv-eval policies.yaml")
    study = load_kv_eval(args.config, overrides=args.overrides, trust_code=args.trust_code)
    folder = Path("runs", study.name) if args.out is None else Path(args.out)
    run = run_kv_eval(
        study,
        folder,
        batch_size=args.batch_size,
        force_new=args.force_new,
        fail_fast=args.fail_fast,
        progress=progress_of(study),
        tell=_tell,
        command=["vlmkit", *args.argv],
    )
    if run.status == "interrupted":
        warn(f"{folder}: {run.num_done:,} of {run.num_units:,} records are there")
        warn("the same command goes on from here")
        raise KeyboardInterrupt
    if run.status != "complete":
        warn(f"stopped by {run.status}; raise it, and the same command goes on from here")
    _show(folder, args.format, trust_code=args.trust_code)


def _tell(done: int, number: int) -> None:
    warn(f"lockstep: {done:,} of {number:,} records")


def _show(folder: Path, form: str, *, trust_code: bool) -> None:
    from vlmkit.experiment import render
    from vlmkit.experiment.kv_eval.outcome import FORMATS, read_outcome
    from vlmkit.experiment.kv_eval.page import write_page

    outcome = read_outcome(folder, trust_code=trust_code)
    warn(f"with plots, in one file: {write_page(folder, outcome)}")
    if form == "json":
        say_json(FORMATS[form](outcome))
    elif form != "terminal":
        say(FORMATS[form](outcome), end="")
    else:
        from rich.console import Console

        Console(file=sys.stdout).print(render.tables_to_terminal(outcome.narrow_tables))

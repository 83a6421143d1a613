"""``vlmkit run``, ``plan`` and ``rescore``: experiments from the command line."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, warn
from vlmkit.cli.worker import check_local, run_by_workers
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.experiment.files import Experiment
    from vlmkit.experiment.progress import Progress


def run_experiment_command(args: argparse.Namespace) -> None:
    """Run an experiment and print its comparison, or show one sample of it."""
    require_mlx()
    from vlmkit.experiment.runner import run_experiment

    experiment = _load(args)
    if args.sample is not None:
        _show_sample(experiment, args.sample, args.arm)
        return
    if args.arm is not None:
        raise VlmkitError("--arm needs --sample, which says what to run; try --sample ID")
    if args.executor == "local":
        check_local(args)
        run = run_experiment(
            experiment,
            _folder(args, experiment),
            batch_size=args.batch_size,
            share=not args.no_sharing,
            force_new=args.force_new,
            fail_fast=args.fail_fast,
            progress=progress_of(experiment),
            command=["vlmkit", *args.argv],
        )
    else:
        run = run_by_workers(args, experiment, _folder(args, experiment), progress_of(experiment))
    errors = f", {run.num_errors:,} of them errors" if run.num_errors else ""
    say(f"{run.folder}: {run.num_done:,} of {run.num_units:,} units are done{errors}")
    if run.status == "interrupted":
        warn("the same command goes on from here")
        raise KeyboardInterrupt
    if run.status == "prepared":
        say(f"start workers, here or where the folder is shared: vlmkit worker {run.folder}")
        return
    if run.status != "complete":
        say(f"stopped by {run.status}; raise it, and the same command goes on from here")
    if run.num_done and experiment.config.metrics:
        from vlmkit.cli.compare import print_comparison

        print_comparison([str(run.folder)], trust_code=args.trust_code)
    say(f"everything about it in one file: vlmkit report {run.folder}")


def run_plan(args: argparse.Namespace) -> None:
    """Print what an experiment would run."""
    require_mlx()
    from vlmkit.experiment.describe import describe_plan
    from vlmkit.experiment.plan import make_plan, read_done

    experiment = _load(args)
    plan = make_plan(experiment)
    folder = Path(_folder(args, experiment))
    width = shutil.get_terminal_size((100, 24)).columns
    for line in describe_plan(plan, read_done(plan, folder), folder, width=width):
        say(line)


def run_rescore(args: argparse.Namespace) -> None:
    """Score a run again."""
    require_mlx()
    from vlmkit.cli.compare import print_comparison
    from vlmkit.experiment.files import load_experiment
    from vlmkit.experiment.reopen import rescore

    trust_code = args.trust_code
    other = None if args.file is None else load_experiment(args.file, trust_code=trust_code)
    number = rescore(args.run_folder, other, trust_code=trust_code)
    say(f"{args.run_folder}: {number:,} records scored again")
    print_comparison([args.run_folder], trust_code=args.trust_code)


def _load(args: argparse.Namespace) -> Experiment:
    from vlmkit.experiment.files import load_experiment

    if args.config is None:
        raise VlmkitError(f"no experiment: give its YAML file, as in vlmkit {args.command} a.yaml")
    return load_experiment(args.config, overrides=args.overrides, trust_code=args.trust_code)


def _folder(args: argparse.Namespace, experiment: Experiment) -> str:
    return args.out if args.out is not None else str(Path("runs", experiment.name))


def progress_of(experiment: Experiment) -> Progress:
    """What shows how far a run is: bars on a terminal, a line now and then elsewhere."""
    from vlmkit.experiment.progress import Bars, Lines

    if sys.stderr.isatty():
        return Bars(tuple(arm.name for arm in experiment.arms))
    return Lines()


def _show_sample(experiment: Experiment, sample: str, arm: str | None) -> None:
    """Run one sample, print what each arm says of it, and keep nothing."""
    from vlmkit.cli.showing import sample_lines
    from vlmkit.experiment.showing import run_sample

    for line in sample_lines(run_sample(experiment, sample, arm)):
        say(line)

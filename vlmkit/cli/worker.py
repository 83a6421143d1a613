"""``vlmkit worker``, and ``vlmkit run`` by several of them."""

from __future__ import annotations

import argparse
import os
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, warn
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.experiment.files import Experiment
    from vlmkit.experiment.progress import Progress
    from vlmkit.experiment.runner import Run


def run_worker_command(args: argparse.Namespace) -> None:
    """Run a part of a run directory."""
    require_mlx()
    from vlmkit.experiment.executors import work
    from vlmkit.experiment.executors.heartbeat import LEASE_S
    from vlmkit.experiment.progress import Lines

    before = signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's way to ask for an end
    try:
        run = work(
            args.run_folder,
            lease_s=LEASE_S if args.lease is None else args.lease,
            batch_size=args.batch_size,
            share=not args.no_sharing,
            fail_fast=args.fail_fast,
            trust_code=args.trust_code,
            progress=Lines(),
            command=["vlmkit", *args.argv],
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    say(f"{run.folder}: {run.num_done:,} of {run.num_units:,} units are done")
    if run.status == "interrupted":
        warn("the same command goes on from here")
        raise KeyboardInterrupt
    if run.status != "complete":
        say(f"stopped by {run.status}")


def run_by_workers(
    args: argparse.Namespace, experiment: Experiment, folder: str, progress: Progress
) -> Run:
    """Run an experiment by the executor that the command line names."""
    from vlmkit.experiment.executors import run_with
    from vlmkit.experiment.executors.heartbeat import LEASE_S

    return run_with(
        args.executor,
        experiment,
        folder,
        num_workers=2 if args.workers is None else args.workers,
        resources=read_resources(args.resource or ()),
        lease_s=LEASE_S if args.lease is None else args.lease,
        batch_size=args.batch_size,
        share=not args.no_sharing,
        force_new=args.force_new,
        fail_fast=args.fail_fast,
        trust_code=args.trust_code,
        progress=progress,
        command=["vlmkit", *args.argv],
    )


def check_local(args: argparse.Namespace) -> None:
    """Refuse what only workers have, where there are none.

    Raises:
        VlmkitError: names the flag.
    """
    for name in ("workers", "resource", "lease"):
        if getattr(args, name) is not None:
            raise VlmkitError(
                f"--{name} is of runs by workers; add --executor worker, slurm or ray"
            )


def read_resources(words: Any) -> dict[str, Any]:
    """Read ``KEY=VALUE`` words; values are YAML.

    Raises:
        VlmkitError: a word that is none, or a key twice.

    Example:
        >>> read_resources(["slurm_partition=gpu", "gpus_per_node=1"])
        {'slurm_partition': 'gpu', 'gpus_per_node': 1}
    """
    from vlmkit.config.document import parse_yaml
    from vlmkit.config.tree import to_plain

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise VlmkitError(f"--resource: {word!r} is no KEY=VALUE such as num_gpus=1")
        if key.strip() in found:
            raise VlmkitError(f"--resource: {key.strip()} is given twice; give it once")
        found[key.strip()] = to_plain(parse_yaml(value, f"--resource {word}"))
    return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGINT)

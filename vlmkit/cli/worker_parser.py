"""The arguments of runs by several workers. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any

from vlmkit.cli.running_flags import add_running_flags

EXECUTORS = ("local", "worker", "slurm", "ray")


def add_executor_flags(run: Any) -> None:
    """Add what says where an experiment runs to ``vlmkit run``."""
    group = run.add_argument_group(
        "workers", "several processes or machines that share the run directory"
    )
    group.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="this process, worker processes of this machine, Slurm jobs, or Ray tasks (local)",
    )
    group.add_argument(
        "--workers", type=int, metavar="N",
        help="workers to start (2); 0: only make the run directory, for 'vlmkit worker DIR'",
    )  # fmt: skip
    group.add_argument(
        "--resource", action="append", metavar="KEY=VALUE",
        help="what each worker needs, as in slurm_partition=gpu or num_gpus=1; repeatable",
    )  # fmt: skip
    _add_lease(group)


def add_worker_command(commands: Any) -> None:
    """Add ``worker`` to the subcommands."""
    worker = commands.add_parser(
        "worker",
        help="run a part of a run directory, beside other workers",
        description="Run what is left of a run directory, together with any number of other "
        "workers on this or other machines. Each claims some samples at a time; what a dead worker "
        "had claimed is run by others once its lease has expired. 'vlmkit run EXPERIMENT "
        "--executor worker --workers 0' makes the directory.",
        allow_abbrev=False,
    )
    worker.add_argument("run_folder", metavar="DIR", help="the run directory")
    add_running_flags(worker, "batch_size", "fail_fast", "no_sharing", "trust_code")
    _add_lease(worker)


def _add_lease(command: Any) -> None:
    command.add_argument(
        "--lease", type=float, metavar="SECONDS",
        help="a worker that is silent for so long is held for dead (60)",
    )  # fmt: skip

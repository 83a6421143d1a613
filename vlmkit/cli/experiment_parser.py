"""The arguments of the commands for experiments. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any

from vlmkit.cli.running_flags import add_running_flags
from vlmkit.cli.worker_parser import add_executor_flags, add_worker_command

EXPORTS = ("parquet", "inspect", "every-eval-ever")
FORMATS = ("terminal", "markdown", "csv", "json", "latex")
EXPERIMENT_FLAGS = {
    "plan": ("out", "trust_code"),
    "run": (
        "out",
        "trust_code",
        "batch_size",
        "force_new",
        "fail_fast",
        "no_sharing",
        "sample",
        "arm",
        "executor",
        "workers",
        "resource",
        "lease",
    ),
    "kv-eval": ("out", "trust_code", "batch_size", "force_new", "fail_fast", "format"),
    "worker": ("trust_code", "batch_size", "fail_fast", "no_sharing", "lease"),
    "rescore": ("trust_code",),
    "compare": ("format", "baseline", "out", "trust_code"),
    "report": ("out", "samples", "trust_code"),
    "reproduce": (
        "samples",
        "sample",
        "arm",
        "top",
        "json",
        "long",
        "batch_size",
        "no_sharing",
        "trust_code",
    ),
    "export": ("format", "out", "trust_code"),
}


def add_experiment_commands(commands: Any) -> None:
    """Add the commands for experiments to the subcommands."""
    plan = commands.add_parser(
        "plan",
        help="show what an experiment would run; nothing is run or written",
        description="Check an experiment, and show its arms, what differs between them, what they "
        "share, what is done already, and how many tokens are left at most.",
        allow_abbrev=False,
    )
    _add_experiment(plan)
    _add_run(commands)
    _add_kv_eval(commands)
    add_worker_command(commands)
    rescore = commands.add_parser(
        "rescore",
        help="score the records of a run again, without generating",
        description="Score the records of a run again: by its own metrics, or by those of the "
        "experiment file that is given.",
        allow_abbrev=False,
    )
    rescore.add_argument("run_folder", metavar="DIR", help="the run directory")
    rescore.add_argument("file", nargs="?", metavar="FILE", help="an experiment with other metrics")
    _add_trust(rescore, "metrics")
    _add_compare(commands)
    report = commands.add_parser(
        "report",
        help="write one HTML file about a run: tables, plots, and every response",
        allow_abbrev=False,
    )
    report.add_argument("run_folder", metavar="DIR", help="the run directory")
    report.add_argument("--out", metavar="FILE", help="where to (DIR/report.html)")
    report.add_argument(
        "--samples", type=int, metavar="N", default=200, help="samples to show at most (200)"
    )
    _add_trust(report, "metrics")
    _add_export(commands)

    _add_reproduce(commands)


def _add_reproduce(commands: Any) -> None:
    again = commands.add_parser(
        "reproduce",
        help="run responses of a run again, and say which are token-exact",
        description="Run responses of a run again, from its directory alone, and compare them "
        "token by token; nothing is written. What has changed since the run is listed first. Exit "
        "code 1: at least one response is not as it was.",
        allow_abbrev=False,
    )
    again.add_argument("run_folder", metavar="DIR", help="the run directory")
    again.add_argument("--samples", type=int, metavar="N", help="so many, spread evenly (all)")
    again.add_argument("--sample", metavar="ID", help="this sample alone")
    again.add_argument("--arm", metavar="NAME", help="this arm alone")
    again.add_argument(
        "--top", type=int, metavar="N", default=5, help="tokens to list of a distribution (5)"
    )
    again.add_argument("--json", action="store_true", help="print one JSON object at the end")
    again.add_argument(
        "--long", action="store_true", help="also where it may take more than 500,000 tokens"
    )
    add_running_flags(again, "batch_size", "no_sharing", "trust_code")


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run an experiment, or what is left of it",
        description="Run an experiment. Every response is on the disk as soon as it is whole; "
        "after any stop the same command goes on. The first Ctrl-C closes the run, the second "
        "stops at once.",
        allow_abbrev=False,
    )
    _add_experiment(run)
    add_running_flags(run, "batch_size", "fail_fast", "no_sharing")
    run.add_argument(
        "--force-new",
        action="store_true",
        help="begin anew where the folder holds another run, which is kept beside it",
    )
    run.add_argument("--sample", metavar="ID", help="run this sample alone, show it, keep nothing")
    run.add_argument("--arm", metavar="NAME", help="with --sample: of this arm alone")
    add_executor_flags(run)


def _add_kv_eval(commands: Any) -> None:
    kv_eval = commands.add_parser(
        "kv-eval",
        help="compare KV-cache policies with a baseline, token by token",
        description="Run every policy by itself, then feed all of them the baseline's tokens, "
        "each through its own cache, and say how far what follows is from the baseline. After any "
        "stop the same command goes on.",
        allow_abbrev=False,
    )
    _add_experiment(kv_eval)
    add_running_flags(kv_eval, "batch_size", "fail_fast")
    kv_eval.add_argument(
        "--force-new",
        action="store_true",
        help="begin anew where the folder holds another run, which is kept beside it",
    )
    kv_eval.add_argument("--format", choices=FORMATS, default="terminal", help="(terminal)")


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="compare the arms of one or several runs",
        description="Scores with their intervals, differences to the baseline with their tests, "
        "and what each arm costs.",
        allow_abbrev=False,
    )
    compare.add_argument("run_folders", nargs="+", metavar="DIR", help="run directories")
    compare.add_argument("--format", choices=FORMATS, default="terminal", help="(terminal)")
    compare.add_argument("--baseline", metavar="NAME", help="the arm to compare with")
    compare.add_argument("--out", metavar="FILE", help="write to a file, not to the terminal")
    _add_trust(compare, "metrics")


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="write a run's records for other programs",
        description="Write a run's records as one Parquet file, as logs of inspect_ai, one for "
        "each arm, or as records of Every Eval Ever.",
        allow_abbrev=False,
    )
    export.add_argument("run_folder", metavar="DIR", help="the run directory")
    export.add_argument("--format", choices=EXPORTS, default="parquet", help="(parquet)")
    export.add_argument(
        "--out", metavar="PATH", help="the file, or the folder for several (in DIR)"
    )
    _add_trust(export, "metrics")


def _add_trust(command: Any, part: str) -> None:
    command.add_argument(
        "--trust-code", action="store_true", help=f"run code that the run's {part} name"
    )


def _add_experiment(command: Any) -> None:
    command.add_argument(
        "words", nargs="*", metavar="CONFIG key=value",
        help="an experiment's YAML file, and overrides: limits.samples=10 of the experiment, "
        "cache.kind=affine of its base run, sampling.0.temperature=0.5,1.0 as more arms",
    )  # fmt: skip
    command.add_argument("--out", metavar="DIR", help="the run directory (runs/NAME)")
    add_running_flags(command, "trust_code")

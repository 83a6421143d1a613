"""The arguments of ``vlmkit check``. Standard library only, like the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

CHECKS = ("batch-invariance",)
CHECK_FLAGS = ("batch_sizes", "json")


def add_check_command(
    commands: Any, add_run_arguments: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add ``check`` to the subcommands.

    Args:
        commands: the subcommands.
        add_run_arguments: adds the arguments that name a run.
    """
    check = commands.add_parser(
        "check",
        help="check whether a response depends on what runs beside it, on this device",
        description="batch-invariance: generate one response alone and in batches of several "
        "sizes, at several places, beside shorter and longer prompts, and count how many different "
        "responses come out. Exit code 1: more than one.",
        allow_abbrev=False,
    )
    check.add_argument("check", choices=CHECKS, help="what to check")
    add_run_arguments(check)
    check.add_argument(
        "--batch-sizes", metavar="N,N,…", default="1,2,4,8", help="rows side by side (1,2,4,8)"
    )
    check.add_argument("--json", action="store_true", help="print JSON")

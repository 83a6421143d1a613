"""Entry point: parse, run the subcommand, turn the outcome into an exit code.

Exit codes: 0 done; 1 a check failed (reproduce, check, inspect); 2 bad input, with one line on
stderr; 130 interrupted; 141 the reader of the output went away; 1 with a traceback: a bug.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import importlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from vlmkit.cli.parser import build_parser, parse
from vlmkit.cli.speaking import check_command_of_ranks, one_rank_speaks, say_error
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.printable import one_line

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + 2  # SIGINT
EXIT_BROKEN_PIPE = 128 + 13  # SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("vlmkit.escape", _escape)
        sys.stdout.reconfigure(errors="vlmkit.escape")
    try:
        with one_rank_speaks():
            code = _parse_and_run(sys.argv[1:] if argv is None else argv)
    except VlmkitError as error:
        say_error(error)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\nvlmkit: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        print(f"vlmkit: error: output cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return code


def _parse_and_run(argv: Sequence[str]) -> int:
    parser = build_parser()
    args = parse(parser, argv)
    check_command_of_ranks(args.command)
    try:
        with _warnings_on_one_line():
            code = _run(args, parser)
    except SystemExit as error:  # a stage's own code; nothing here leaves that way
        raise VlmkitError(f"code of a stage ended the run: SystemExit: {error}") from error
    sys.stdout.flush()
    return code


COMMANDS = {  # where each one's function is; imported when it is asked for
    "generate": "generate:run_generate",
    "trace": "tracing:run_trace",
    "describe": "describe:run_describe",
    "schema": "schema:run_schema",
    "models": "models:run_models",
    "configs": "configs:run_configs",
    "stages": "stages:run_stages",
    "doctor": "doctor:run_doctor",
    "run": "experiment:run_experiment_command",
    "kv-eval": "kv_eval:run_kv_eval_command",
    "plan": "experiment:run_plan",
    "rescore": "experiment:run_rescore",
    "worker": "worker:run_worker_command",
    "compare": "compare:run_compare",
    "report": "report:run_report",
    "export": "export:run_export",
}
CHECKS = {
    "reproduce": "reproduce:run_reproduce",
    "check": "check:run_check",
    "inspect": "inspection:run_inspect",
}
"""Commands that find out whether something holds."""


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.command == "completion":
        from vlmkit.cli.completion import run_completion

        run_completion(args, parser)
    elif args.command in CHECKS:
        return EXIT_OK if _function(CHECKS[args.command])(args) else EXIT_FAILED
    elif args.command in COMMANDS:
        _function(COMMANDS[args.command])(args)
    else:
        parser.print_help()
    return EXIT_OK


def _function(place: str) -> Callable[[argparse.Namespace], object]:
    module, name = place.split(":")
    function: Callable[[argparse.Namespace], object] = getattr(
        importlib.import_module(f"vlmkit.cli.{module}"), name
    )
    return function


@contextlib.contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Print our own warnings to stderr as errors are, and leave those of libraries alone."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, VlmkitWarning):
                print(f"vlmkit: warning: {one_line(str(message))}", file=sys.stderr)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", VlmkitWarning)
        warnings.showwarning = show
        yield


def _drop_output() -> None:
    """Let what is still buffered go nowhere; else the interpreter complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as JSON does."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return json.dumps(text)[1:-1], error.end

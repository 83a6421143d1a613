"""``vlmkit generate``: text from a config, flags and overrides."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlmkit.backend import require_mlx
from vlmkit.cli.parser import given_flags
from vlmkit.cli.run import read_question, start_run
from vlmkit.cli.terminal import NORMAL, dim_thinking, is_inside, say_json, shown, wants_colors
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.results import GenerationResult


def run_generate(args: argparse.Namespace) -> None:
    """Check the config, load the model, and write the answer to stdout."""
    if args.logprobs and not args.json:
        raise VlmkitError("--logprobs prints with --json only: add --json")
    require_mlx()
    from vlmkit.config.run import load_run

    resolved = load_run(
        args.config,
        overrides=args.overrides,
        flags=given_flags(args),
        trust_code=args.trust_code,
    )
    question = read_question(resolved)

    from vlmkit.engine import collect

    run, results = start_run(resolved, question)
    prompt = str(run.request.prompt)
    if args.json:
        say_json(_to_json(collect(results), with_logprobs=args.logprobs))
    elif args.no_stream:
        _write([collect(results).text], prompt)
    else:
        _write((result.text for result in results), prompt)


def _write(segments: Iterable[str], prompt: str) -> None:
    segments = shown(segments)
    is_dimmed = sys.stdout.isatty() and wants_colors()
    if is_dimmed:
        segments = dim_thinking(segments, inside=is_inside(prompt))
    num_written = 0
    try:
        for segment in segments:
            num_written += sys.stdout.write(segment)
            sys.stdout.flush()
    except (VlmkitError, KeyboardInterrupt) as error:
        sys.stdout.write(NORMAL if is_dimmed else "")
        if num_written and isinstance(error, VlmkitError):
            print()  # the message gets a line of its own
        sys.stdout.flush()
        raise
    print()


def _to_json(result: GenerationResult, *, with_logprobs: bool) -> str:
    return json.dumps(_fields(result, with_logprobs=with_logprobs), ensure_ascii=False)


def _fields(result: GenerationResult, *, with_logprobs: bool) -> dict[str, Any]:
    left_out = {"trace"} if with_logprobs else {"trace", "logprobs"}  # logprobs: a whole vocabulary
    fields = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in left_out
    }
    fields["alternatives"] = [
        _fields(other, with_logprobs=with_logprobs) for other in result.alternatives
    ]
    return fields

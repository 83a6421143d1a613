"""``vlmkit generate``: text from a config, flags and overrides."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlmkit.backend import require_mlx
from vlmkit.cli.parser import given_flags
from vlmkit.cli.run import load_request, read_question
from vlmkit.cli.terminal import dim_thinking, is_inside

if TYPE_CHECKING:
    from vlmkit.results import GenerationResult


def run_generate(args: argparse.Namespace) -> None:
    """Check the config, load the model, and write the answer to stdout."""
    require_mlx()
    from vlmkit.config.run import load_run

    config = load_run(args.config, overrides=args.overrides, flags=given_flags(args)).config
    question = read_question(config)

    from vlmkit.api import stream_pipeline
    from vlmkit.engine import collect

    run = load_request(config, question)
    results = stream_pipeline(*run)
    prompt = str(run.request.prompt)
    if args.json:
        print(_to_json(collect(results), with_logprobs=args.logprobs))
    elif args.no_stream:
        _write([collect(results).text], prompt)
    else:
        _write((result.text for result in results), prompt)


def _write(segments: Iterable[str], prompt: str) -> None:
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        segments = dim_thinking(segments, inside=is_inside(prompt))
    for segment in segments:
        sys.stdout.write(segment)
        sys.stdout.flush()
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

"""``vlmkit check``: whether a response depends on what runs beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlmkit.backend import require_mlx
from vlmkit.cli.parser import given_flags
from vlmkit.cli.run import load_request, read_question
from vlmkit.cli.terminal import say, say_json
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.experiment.invariance import Invariance, Outcome

_HEAD = ("rows", "place", "neighbours", "output", "first difference", "largest logprob change")


def run_check(args: argparse.Namespace) -> bool:
    """Check one response and print a table; tell whether it is always the same."""
    batch_sizes = _batch_sizes(args.batch_sizes)
    require_mlx()
    import msgspec

    from vlmkit.config.locate import located
    from vlmkit.config.run import load_run
    from vlmkit.experiment.invariance import check_batch_invariance

    run = load_run(
        args.config,
        overrides=args.overrides,
        flags=given_flags(args),
        trust_code=args.trust_code,
    )
    question = read_question(run)
    with located(run.tree, ("model",)):
        loaded = load_request(run.config, question)
    with located(run.tree):
        found = check_batch_invariance(
            loaded.model,
            loaded.processor,
            loaded.request,
            loaded.pipeline,
            batch_sizes=batch_sizes,
            announce=None if args.json else _Table(),
        )
    if args.json:
        say_json(json.dumps(msgspec.to_builtins(found), ensure_ascii=False))
    else:
        for line in _lines(found):
            say(line)
    return found.num_outputs == 1


def _batch_sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise VlmkitError(
            f"--batch-sizes: {text!r} is no list of numbers; write them as in 1,2,4"
        ) from None


def _lines(found: Invariance) -> Iterator[str]:
    runs = len(found.outcomes) + 1
    what = "1 output" if found.num_outputs == 1 else f"{found.num_outputs} different outputs"
    yield (
        f"{what} of {runs} runs, on {found.device} in {found.dtype}; {found.prompt_tokens} prompt "
        f"tokens, {found.generation_tokens} generated"
    )
    if found.num_outputs > 1:
        for number, text in enumerate(found.outputs):
            yield f"output {number}: {json.dumps(text, ensure_ascii=False)}"


class _Table:
    """Prints each outcome as it comes."""

    def __init__(self) -> None:
        self._has_head = False

    def __call__(self, one: Outcome) -> None:
        rows = [_row(one)] if self._has_head else [_HEAD, _row(one)]
        self._has_head = True
        for row in rows:
            cells = (cell.rjust(len(name)) for cell, name in zip(row, _HEAD, strict=True))
            say("  ".join(cells))


def _row(one: Outcome) -> tuple[str, ...]:
    place = "–" if one.first_difference is None else f"token {one.first_difference + 1}"
    change = one.max_logprob_difference
    return (
        str(one.batch_size),
        str(one.place + 1),
        one.neighbours,
        str(one.output),
        place,
        "–" if change is None else f"{change:.2g}",
    )

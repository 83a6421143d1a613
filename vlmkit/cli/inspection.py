"""``vlmkit inspect``: what a checkpoint is, whether it runs here, and what is missing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, say_json

if TYPE_CHECKING:
    from vlmkit.loading.findings import Findings


def run_inspect(args: argparse.Namespace) -> bool:
    """Print one page on a checkpoint; tell whether it runs."""
    require_mlx()
    from vlmkit.loading import resolve_checkpoint
    from vlmkit.loading.findings import find_out

    found = find_out(resolve_checkpoint(args.model, revision=args.revision))
    if args.json:
        say_json(json.dumps(found._asdict(), indent=2, ensure_ascii=False))
    else:
        for line in _lines(found):
            say(line)
    return found.runs


def _lines(found: Findings) -> Iterator[str]:
    family = {None: "not supported", "mlx_lm": "text only, through mlx-lm"}.get(found.family)
    rows = {
        "folder": found.folder,
        "model type": f"{found.model_type} ({family or 'family ' + str(found.family)})",
        "takes": ", ".join(found.takes) if found.family else "nothing: no model of this type",
        **found.facts,
        "runs": "yes" if found.runs else "no",
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        yield f"{name:<{width}}  {text}"
    for problem in found.problems:
        yield f"- {problem}"

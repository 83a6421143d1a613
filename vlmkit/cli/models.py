"""``vlmkit models``: what can be loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, say_json


def run_models(args: argparse.Namespace) -> None:
    """List the families and what is verified of each, the text-only route, the embedded model."""
    require_mlx()
    from vlmkit.models.families import FAMILIES

    if args.json:
        families = {
            family.name: {
                "model_types": family.model_types,
                "takes": family.takes,
                "verified": family.verified,
                "about": family.about,
            }
            for family in FAMILIES
        }
        document = {"families": families, "embedded": ["shapes"], "text_only": "mlx-lm"}
        say_json(json.dumps(document, indent=2))
        return
    for line in table(
        ("model_type", "takes", "verified", "about"),
        [
            (", ".join(f.model_types), ", ".join(f.takes), ", ".join(f.verified), f.about)
            for f in FAMILIES
        ],
    ):
        say(line)
    say(
        "text only: mlx-lm architectures with keys and values, windows or recurrent state; of other"
    )
    say("  families that take images (lfm2-vl, idefics3, …) only the text part runs")
    say("embedded models, a few megabytes each: shapes (the default of every command), album")
    say(
        "verified: logits as transformers', quantized checkpoints as mlx-vlm's, batches, contrasted"
    )
    say("  logits and searches as runs of their own; 'vlmkit inspect FOLDER' looks at a checkpoint")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out columns of text.

    Example:
        >>> table(("a", "b"), [("long", "x")])
        ['a     b', 'long  x']
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]

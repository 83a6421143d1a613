"""``vlmkit models``: what can be loaded."""

from __future__ import annotations

import argparse
import json

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, say_json


def run_models(args: argparse.Namespace) -> None:
    """List the families with their model types, the text-only route and the embedded model."""
    require_mlx()
    from vlmkit.models.families import FAMILIES

    families = {family.name: list(family.model_types) for family in FAMILIES}
    if args.json:
        document = {"families": families, "embedded": ["shapes"], "text_only": "mlx-lm"}
        say_json(json.dumps(document, indent=2))
        return
    width = max(len(name) for name in [*families, "text only"])
    say("family, and the model_type of its config.json:")
    for name, model_types in families.items():
        say(f"  {name:<{width}}  {', '.join(model_types)}")
    say(f"  {'text only':<{width}}  mlx-lm architectures with keys and values, windows or")
    say(f"  {'':<{width}}  recurrent state; of other families that take images (qwen3_vl,")
    say(f"  {'':<{width}}  gemma3, …) only the text part runs")
    say("embedded model:")
    say(f"  {'shapes':<{width}}  a few megabytes, Qwen2-VL layout; the default of every command")

"""``vlmkit describe``: the resolved pipeline and where each value came from."""

from __future__ import annotations

import argparse
import json

from vlmkit.backend import require_mlx
from vlmkit.cli.parser import given_flags
from vlmkit.cli.terminal import say, say_json
from vlmkit.printable import mask_secrets

_MAX_VALUE_WIDTH = 44


def run_describe(args: argparse.Namespace) -> None:
    """Print one line per effective value."""
    require_mlx()
    from vlmkit.config.describe import (
        describe_checkpoint,
        describe_run,
        recommended_sampling,
        with_token_ids,
    )
    from vlmkit.config.run import load_run
    from vlmkit.config.tree import format_path

    run = load_run(
        args.config,
        overrides=args.overrides,
        flags=given_flags(args),
        trust_code=args.trust_code,
    )
    run = with_token_ids(run)
    settings, advice = describe_run(run), recommended_sampling(run)
    notes = describe_checkpoint(run.config.model)
    if args.json:
        origins = {format_path(item.path): str(item.origin) for item in settings}
        values = run.config.model_dump(mode="json")
        notes = [*notes, *([] if advice is None else [advice])]
        document = {"config": values, "origins": origins, "notes": notes}
        say_json(mask_secrets(json.dumps(document, indent=2, ensure_ascii=False)))
        return
    rows = [(format_path(item.path), _shown(item.value), str(item.origin)) for item in settings]
    key_width = max(len(key) for key, _, _ in rows)
    value_width = min(max(len(value) for _, value, _ in rows), _MAX_VALUE_WIDTH)
    stage = None
    for item, (key, value, origin) in zip(settings, rows, strict=True):
        if item.stage != stage:
            told = f"  ({advice})" if item.stage == "sampling" and advice else ""
            say(f"{item.stage}{told}")
            stage = item.stage
        say(f"  {key:<{key_width}}  {value:<{value_width}}  {origin}")
    for note in notes:
        say(f"note: {note}")


def _shown(value: object) -> str:
    return mask_secrets(json.dumps(value, ensure_ascii=False))

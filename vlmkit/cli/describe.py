"""``vlmkit describe``: the resolved pipeline and where each value came from."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from vlmkit.backend import require_mlx
from vlmkit.cli.parser import given_flags

_MAX_VALUE_WIDTH = 44


def run_describe(args: argparse.Namespace) -> None:
    """Print one line per effective value."""
    require_mlx()
    from vlmkit.config.describe import describe_run, recommended_sampling
    from vlmkit.config.run import load_run
    from vlmkit.config.tree import format_path

    run = load_run(args.config, overrides=args.overrides, flags=given_flags(args))
    settings, note = describe_run(run), recommended_sampling(run)
    if args.json:
        origins = {format_path(item.path): str(item.origin) for item in settings}
        document: dict[str, Any] = {
            "config": run.config.model_dump(mode="json"),
            "origins": origins,
        }
        if note is not None:
            document["note"] = note
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    rows = [
        (format_path(item.path), json.dumps(item.value, ensure_ascii=False), str(item.origin))
        for item in settings
    ]
    key_width = max(len(key) for key, _, _ in rows)
    value_width = min(max(len(value) for _, value, _ in rows), _MAX_VALUE_WIDTH)
    stage = None
    for item, (key, value, origin) in zip(settings, rows, strict=True):
        if item.stage != stage:
            print(f"{item.stage}  ({note})" if item.stage == "sampling" and note else item.stage)
            stage = item.stage
        print(f"  {key:<{key_width}}  {value:<{value_width}}  {origin}")

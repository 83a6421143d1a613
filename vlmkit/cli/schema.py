"""``vlmkit schema``: the JSON Schema of run files and experiments."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say


def run_schema(args: argparse.Namespace) -> None:
    """Print a schema, or write it into a folder."""
    require_mlx()
    from vlmkit.config.schema import schema_text
    from vlmkit.experiment.schema import experiment_schema_text
    from vlmkit.files import make_folder, write_file

    text = experiment_schema_text() if args.experiment else schema_text()
    if args.out is None or args.out == "-":
        say(text, end="")
        return
    path = Path(args.out) / ("experiment.schema.json" if args.experiment else "schema.json")
    make_folder(path.parent)
    write_file(path, text.encode())
    say(path)

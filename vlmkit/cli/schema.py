"""``vlmkit schema``: the JSON Schema of run files and experiments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlmkit.backend import require_mlx
from vlmkit.errors import VlmkitError


def run_schema(args: argparse.Namespace) -> None:
    """Print a schema, or write it into a folder."""
    require_mlx()
    from vlmkit.config.schema import schema_text
    from vlmkit.experiment.schema import experiment_schema_text
    from vlmkit.files import write_file

    text = experiment_schema_text() if args.experiment else schema_text()
    if args.out is None or args.out == "-":
        sys.stdout.write(text)
        return
    path = Path(args.out) / ("experiment.schema.json" if args.experiment else "schema.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
    write_file(path, text.encode())
    print(path)

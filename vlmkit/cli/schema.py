"""``vlmkit schema``: the JSON Schema of run files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlmkit.backend import require_mlx
from vlmkit.errors import VlmkitError


def run_schema(args: argparse.Namespace) -> None:
    """Print the schema, or write it into a folder as ``schema.json``."""
    require_mlx()
    from vlmkit.config.files import write_file
    from vlmkit.config.schema import schema_text

    if args.out is None or args.out == "-":
        sys.stdout.write(schema_text())
        return
    path = Path(args.out) / "schema.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
    write_file(path, schema_text().encode())
    print(path)

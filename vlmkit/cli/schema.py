"""``vlmkit schema``: the JSON Schemas of run, experiment, kv-eval and conversion files."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say


def run_schema(args: argparse.Namespace) -> None:
    """Print a schema, or write it into a folder."""
    require_mlx()
    from vlmkit.config.schema import schema_text
    from vlmkit.conversion.config import convert_schema_text
    from vlmkit.experiment.schema import experiment_schema_text, kv_eval_schema_text
    from vlmkit.files import make_folder, write_file

    name, make = "schema.json", schema_text
    if args.experiment:
        name, make = "experiment.schema.json", experiment_schema_text
    elif args.kv_eval:
        name, make = "kv_eval.schema.json", kv_eval_schema_text
    elif args.convert:
        name, make = "convert.schema.json", convert_schema_text
    text = make()
    if args.out is None or args.out == "-":
        say(text, end="")
        return
    path = Path(args.out) / name
    make_folder(path.parent)
    write_file(path, text.encode())
    say(path)

"""``vlmkit bench``: timings of KV caches, and two files of them compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, say_json, warn
from vlmkit.errors import VlmkitError
from vlmkit.files import check_target

if TYPE_CHECKING:
    from vlmkit.experiment.tables import TextTable


def run_bench_command(args: argparse.Namespace) -> None:
    """Measure, or compare what was measured."""
    if args.compare is not None:
        _compare(args)
        return
    if args.out is not None:
        check_target(args.out)
    require_mlx()
    from vlmkit.bench import load_kv_bench, run_kv_bench, write_rows
    from vlmkit.bench.tables import FORMATS, narrow_tables

    config = load_kv_bench(args.config, overrides=args.overrides, trust_code=args.trust_code)
    rows = []
    for row in run_kv_bench(config, tell=warn, command=["vlmkit", *args.argv]):
        rows.append(row)
        warn(
            f"{row.test}, {row.policy}, {row.context:,} x {row.batch}: "
            f"{row.median_s * 1e3:.3g} ms, {row.ratio:.2f} x dense"
        )
    if not rows:
        raise VlmkitError("nothing was measured: every case was left out, see above")
    if args.out is not None:
        write_rows(args.out, rows)
    if args.format == "terminal":
        _draw(narrow_tables(rows))
    elif args.format == "json":
        say_json(FORMATS["json"](rows))
    else:
        say(FORMATS[args.format](rows), end="")


def _compare(args: argparse.Namespace) -> None:
    from vlmkit.bench.rows import read_rows
    from vlmkit.bench.tables import comparison
    from vlmkit.experiment.render import tables_to_markdown

    if args.config is not None or args.overrides or args.out is not None:
        raise VlmkitError("--compare reads two files and times nothing; give nothing beside it")
    old, new = (read_rows(path) for path in args.compare)
    found = comparison(old, new)
    if args.format == "terminal":
        _draw(found)
    elif args.format == "md":
        say(tables_to_markdown(found), end="")
    else:
        raise VlmkitError(f"--compare has no {args.format}; use --format terminal or md")


def _draw(tables: Sequence[TextTable]) -> None:
    from rich.console import Console

    from vlmkit.experiment.render import tables_to_terminal

    Console(file=sys.stdout).print(tables_to_terminal(tables))

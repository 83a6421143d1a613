"""``vlmkit compare``: what runs have found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vlmkit.backend import require_mlx


def run_compare(args: argparse.Namespace) -> None:
    """Compare the arms of runs."""
    require_mlx()
    print_comparison(
        args.run_folders,
        form=args.format,
        baseline=args.baseline,
        file=args.out,
        trust_code=args.trust_code,
    )


def print_comparison(
    folders: Sequence[str],
    *,
    form: str = "terminal",
    baseline: str | None = None,
    file: str | None = None,
    trust_code: bool = False,
) -> None:
    """Print a comparison of runs, or write it to a file.

    Args:
        folders: run directories.
        form: "terminal", "markdown", "csv", "json" or "latex".
        baseline: the arm to compare with; None: that of the first run.
        file: where to; None: stdout.
        trust_code: let the runs' metrics name code to run.

    Raises:
        VlmkitError: a folder that is no run, or a baseline that is no arm.
    """
    from vlmkit.experiment import render
    from vlmkit.experiment.compare import compare
    from vlmkit.experiment.manifest import read_manifest
    from vlmkit.experiment.reading import read_scores
    from vlmkit.experiment.reopen import run_info, run_scorers
    from vlmkit.experiment.store import RECORDS, run_files
    from vlmkit.files import check_target, write_file

    paths = [Path(folder) for folder in folders]
    if file is not None:
        check_target(file, [one for path in paths for one in run_files(path)], what="--out")
    runs = [(run_info(path), read_scores(path / RECORDS)) for path in paths]
    summaries = {
        name: scorer.summarise
        for path in paths
        for name, scorer in run_scorers(path, read_manifest(path), trust_code=trust_code).items()
    }
    comparison = compare(runs, baseline=baseline, summaries=summaries)
    if form == "terminal" and file is None:
        from rich.console import Console

        console = Console(file=sys.stdout)
        console.print(render.to_terminal(comparison, console.width))
        return
    write = {
        "terminal": render.to_plain,
        "markdown": render.to_markdown,
        "csv": render.to_csv,
        "json": render.to_json,
        "latex": render.to_latex,
    }[form]
    text = write(comparison).rstrip("\n") + "\n"
    if file is None:
        sys.stdout.write(text)
        return
    write_file(file, text.encode())
    print(file)

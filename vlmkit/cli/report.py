"""``vlmkit report``: one HTML file about a run."""

from __future__ import annotations

import argparse

from vlmkit.backend import require_mlx
from vlmkit.errors import VlmkitError


def run_report(args: argparse.Namespace) -> None:
    """Write the report and print where it is."""
    require_mlx()
    from vlmkit.experiment.report import Limits
    from vlmkit.experiment.reporting import report_run

    if args.samples < 1:
        raise VlmkitError(f"--samples is {args.samples}; it must be 1 or more")
    limits = Limits(samples=args.samples)
    print(report_run(args.run_folder, args.out, limits=limits, trust_code=args.trust_code))

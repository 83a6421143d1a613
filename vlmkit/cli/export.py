"""``vlmkit export``: a run's records in the format of other programs."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from vlmkit.backend import require_mlx
from vlmkit.errors import VlmkitError


def run_export(args: argparse.Namespace) -> None:
    """Write the files and print where they are."""
    require_mlx()
    folder = Path(args.run_folder)
    if args.format == "parquet":
        print(_parquet(folder, args.out))
    elif args.format == "every-eval-ever":
        from vlmkit.adapters.every_eval import export_every_eval

        for path in export_every_eval(
            folder, Path(args.out or folder / "every_eval_ever"), trust_code=args.trust_code
        ):
            print(path)
    else:
        if find_spec("inspect_ai") is None:
            raise VlmkitError(
                "--format inspect: inspect_ai is not installed; pip install 'vlmkit[inspect]'"
            )
        from vlmkit.adapters.inspect_log import export_inspect

        for path in export_inspect(
            folder, Path(args.out or folder / "inspect"), trust_code=args.trust_code
        ):
            print(path)


def _parquet(folder: Path, out: str | None) -> str:
    from vlmkit.experiment.export import export_parquet
    from vlmkit.experiment.manifest import read_manifest
    from vlmkit.experiment.reading import read_records
    from vlmkit.experiment.store import RECORDS, run_files
    from vlmkit.files import check_target

    path = out or str(folder / "records.parquet")
    check_target(path, run_files(folder), what="" if out is None else "--out")
    export_parquet(read_records(folder / RECORDS), list(read_manifest(folder).metrics), path)
    return path

"""The report of a run directory: one HTML file."""

from __future__ import annotations

import os
from pathlib import Path

from vlmkit.experiment.compare import compare
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.experiment.reopen import run_info, run_samples, run_scorers
from vlmkit.experiment.report import Limits, report_html, report_samples, write_report
from vlmkit.experiment.runinfo import sample_info
from vlmkit.experiment.store import RECORDS, run_files
from vlmkit.files import check_target


def report_run(
    folder: str | os.PathLike[str],
    file: str | os.PathLike[str] | None = None,
    *,
    limits: Limits | None = None,
    trust_code: bool = False,
) -> Path:
    """Write the report of a run.

    Args:
        folder: the run directory.
        file: where to; None: ``report.html`` in the folder.
        limits: how much it shows; None: the defaults.
        trust_code: let the run's metrics name code to run.

    Returns:
        The file.

    Raises:
        VlmkitError: no run directory, its data set has changed or is gone, or the file cannot be
            written.
    """
    path = Path(folder)
    target = path / "report.html" if file is None else Path(file)
    check_target(target, run_files(path))
    manifest, records = read_manifest(path), path / RECORDS
    limits = Limits() if limits is None else limits
    info, samples = run_info(path), run_samples(path, manifest)
    read = read_scores(records) if info.metrics else read_records(records)
    chosen = report_samples(read, info.metrics, limits=limits)
    places = {name: place for place, name in enumerate(samples.ids)}
    info.samples = {name: sample_info(samples[places[name]]) for name in chosen if name in places}
    scorers = run_scorers(path, manifest, trust_code=trust_code)
    summaries = {name: one.summarise for name, one in scorers.items()}
    comparison = compare([(info, read_scores(records))], summaries=summaries)
    base = Path(manifest.folder)
    html = report_html(info, comparison, read_records(records), chosen, base=base, limits=limits)
    check_target(target, [base / image for one in info.samples.values() for image in one.images])
    write_report(target, html)
    return target

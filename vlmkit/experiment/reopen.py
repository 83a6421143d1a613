"""A run directory as it is found later: its samples, its scorers, what a comparison needs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError
from vlmkit.experiment.config import metrics_of
from vlmkit.experiment.data import DatasetConfig, Samples, data_hash, load_samples
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.manifest import FILE, Manifest, read_manifest, write_manifest
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.runinfo import RunInfo
from vlmkit.experiment.scores import scored_again
from vlmkit.experiment.scoring import Scorer, ScorerConfig, make_scorer
from vlmkit.experiment.store import RECORDS, claim, replace_records

Config = TypeVar("Config")


def run_samples(folder: Path, manifest: Manifest) -> Samples:
    """Read the data set of a run again, also what ``limits.samples`` leaves out.

    Raises:
        VlmkitError: they are not there any more, or are no longer the same.
    """
    config: DatasetConfig = _read(TypeAdapter(DatasetConfig), manifest.dataset, folder)
    base = Path(manifest.folder)
    samples = load_samples(config, base)
    if data_hash(config, base, samples) != manifest.hashes.get("data"):
        raise VlmkitError(f"{folder}: its data set has changed since the run; put it back")
    return samples


def run_scorers(folder: Path, manifest: Manifest, *, trust_code: bool = False) -> dict[str, Scorer]:
    """Build the scorers of a run again, by metric.

    Args:
        folder: the run directory.
        manifest: its manifest.
        trust_code: let it name code to run: the directory may be somebody else's.

    Raises:
        VlmkitError: a scorer that cannot be made, or that is code without trust.
    """
    adapter: TypeAdapter[ScorerConfig] = TypeAdapter(ScorerConfig)
    base = Path(manifest.metrics_folder)
    configs = {name: _read(adapter, config, folder) for name, config in manifest.metrics.items()}
    for name, config in configs.items():
        if isinstance(config, External) and config.is_code and not trust_code:
            raise VlmkitError(
                f"{folder / FILE}: metrics.{name}.factory: {config.factory!r} names code to run; "
                "if you trust it, add --trust-code (in Python: trust_code=True)"
            )
    return {name: make_scorer(one, base)._replace(name=name) for name, one in configs.items()}


def _read(adapter: TypeAdapter[Config], value: object, folder: Path) -> Config:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise VlmkitError(
            f"{folder / FILE}: {'.'.join(map(str, first['loc']))}: {first['msg']}; it was written "
            "by another version of vlmkit"
        ) from error


def run_info(folder: str | os.PathLike[str]) -> RunInfo:
    """Return what a comparison and a report have to know of a run.

    Raises:
        VlmkitError: no run directory.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    return RunInfo(
        name=path.resolve().name,
        arms=manifest.arms,
        metrics=list(manifest.metrics),
        baseline=manifest.baseline,
        data_hash=manifest.hashes.get("data"),
        num_units=manifest.num_units,
        provenance={
            "command": manifest.command,
            "created": manifest.created,
            "device": manifest.device,
            "system": manifest.system,
            "versions": manifest.versions,
            "git": manifest.git,
            "hashes": manifest.hashes,
            "seeds": manifest.seeds,
            "dataset": manifest.dataset,
            "metrics": manifest.metrics,
            "caches": _by_cache(manifest.caches),
        },
    )


def _by_cache(caches: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each cache once, under the names of all its arms."""
    names: dict[str, list[str]] = {}
    for arm, facts in caches.items():
        names.setdefault(json.dumps(facts), []).append(arm)
    return {", ".join(arms): json.loads(facts) for facts, arms in names.items()}


def rescore(
    folder: str | os.PathLike[str],
    other: Experiment | None = None,
    *,
    trust_code: bool = False,
) -> int:
    """Score a run's records again, without generating; they change as a whole or not at all.

    Args:
        folder: the run directory.
        other: an experiment whose metrics take the place of the run's own; None: the run's own,
            as they are implemented now.
        trust_code: let the run's metrics name code to run.

    Returns:
        How many records there are.

    Raises:
        VlmkitError: no run directory, one that another process writes to, or data that have
            changed.
    """
    path = Path(folder)
    lock = claim(path)
    try:
        manifest = read_manifest(path)
        if other is not None:
            manifest.metrics = metrics_of(other.config)
            manifest.metrics_folder = str(other.metrics_folder.resolve())
        scorers = run_scorers(path, manifest, trust_code=trust_code)
        samples = run_samples(path, manifest)
        records = read_records(path / RECORDS)
        number = replace_records(path, scored_again(records, scorers, samples, path))
        write_manifest(path, manifest)
    finally:
        os.close(lock)
    return number

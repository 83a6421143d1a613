"""A run's records as logs of inspect_ai: one ``.eval`` file per arm, seeds as epochs.

Reference:
    inspect_ai, "Log files", https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalRevision,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ModelUsage

from vlmkit.adapters.inspect_sample import to_sample
from vlmkit.errors import VlmkitError
from vlmkit.experiment.compare import compare
from vlmkit.experiment.comparison import ArmScore, Comparison
from vlmkit.experiment.data import Samples
from vlmkit.experiment.manifest import Manifest, read_manifest
from vlmkit.experiment.provenance import config_hash
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.experiment.records import Record
from vlmkit.experiment.reopen import run_info, run_samples, run_scorers
from vlmkit.experiment.store import RECORDS
from vlmkit.files import check_target, make_folder

_NOT_ARGUMENTS = {"model", "prompt", "messages", "images", "audio", "video"}


def export_inspect(folder: Path, out: Path, *, trust_code: bool = False) -> list[Path]:
    """Write a run as logs of inspect_ai.

    An arm is a log: its pipeline is in ``model_args``, as the model provider takes it, so that
    ``inspect score`` works on it; what the run was made of is in ``metadata``. A
    sample has its images in it, a response its thinking as reasoning content, and each metric is a
    score. Responses that could not be had are samples with an error.

    Args:
        folder: the run directory.
        out: a folder for the logs; made if it is not there. Logs of the same run are replaced.

    Returns:
        The files, in the order of the arms.

    Raises:
        VlmkitError: no run directory, its data set has changed or is gone, or a file cannot be
            written.
    """
    manifest, info = read_manifest(folder), run_info(folder)
    samples, records = run_samples(folder, manifest), folder / RECORDS
    scorers = run_scorers(folder, manifest, trust_code=trust_code)
    summaries = {name: one.summarise for name, one in scorers.items()}
    comparison = compare([(info, read_scores(records))], summaries=summaries)
    ended = datetime.fromtimestamp(records.stat().st_mtime, UTC).isoformat(timespec="seconds")
    places = {name: place for place, name in enumerate(samples.ids)}
    written = []
    for arm in manifest.arms:
        log = _log(manifest, arm, samples, comparison)
        own = (record for record in read_records(records) if record.arm == arm)
        log.samples = list(_samples(own, manifest, samples, places, log.eval.model))
        log.stats = _stats(log.samples, log.eval.model, manifest.created, ended)
        num_responses = len(samples) * len(manifest.seeds)
        log.status = "success" if len(log.samples) == num_responses else "cancelled"
        log.results = _results(log.samples, comparison, arm, num_responses)
        path = out / f"{_file_name(manifest.name)}_{_file_name(arm)}.eval"
        make_folder(out)
        check_target(path)
        try:
            write_eval_log(log, str(path))
        except OSError as error:
            raise VlmkitError(f"{path}: cannot be written: {error.strerror}") from None
        written.append(path)
    return written


def _log(manifest: Manifest, arm: str, samples: Samples, comparison: Comparison) -> EvalLog:
    config = manifest.arms[arm]
    run_id = config_hash([manifest.hashes, manifest.created])
    spec = EvalSpec(
        run_id=run_id,
        eval_id=config_hash([run_id, arm]),
        task_id=config_hash([manifest.name, manifest.hashes.get("data", "")]),
        created=manifest.created,
        task=manifest.name,
        dataset=EvalDataset(
            name=str(manifest.dataset.get("kind")),
            samples=len(samples),
            sample_ids=list(samples.ids),
        ),
        model=f"vlmkit/{config.get('model')}",
        model_args={key: value for key, value in config.items() if key not in _NOT_ARGUMENTS},
        config=EvalConfig(epochs=len(manifest.seeds)),
        revision=_revision(manifest.git),
        packages=manifest.versions,
        metadata={
            "arm": arm,
            "baseline": comparison.baseline,
            "seeds": manifest.seeds,
            "hashes": manifest.hashes,
            "device": manifest.device,
            "system": manifest.system,
            "command": manifest.command,
            "dataset": manifest.dataset,
            "metrics": manifest.metrics,
        },
    )
    return EvalLog(eval=spec)


def _samples(
    records: Iterator[Record],
    manifest: Manifest,
    samples: Samples,
    places: Mapping[str, int],
    model: str,
) -> Iterator[EvalSample]:
    epochs = {seed: number for number, seed in enumerate(manifest.seeds, 1)}
    for record in records:
        place = places.get(record.sample)
        if place is not None:  # a limit may be lower now than when the record was made
            yield to_sample(record, samples[place], epochs[record.seed], model, manifest)


def _revision(git: Mapping[str, str]) -> EvalRevision | None:
    if "commit" not in git:
        return None
    return EvalRevision(type="git", origin="", commit=git["commit"], dirty="dirty" in git)


def _stats(samples: Sequence[EvalSample], model: str, started: str, ended: str) -> EvalStats:
    usage = sum((sample.model_usage[model] for sample in samples), ModelUsage())
    return EvalStats(started_at=started, completed_at=ended, model_usage={model: usage})


def _results(
    samples: Sequence[EvalSample], comparison: Comparison, arm: str, num_responses: int
) -> EvalResults:
    rows = [
        (table.metric, row) for table in comparison.metrics for row in table.rows if row.arm == arm
    ]
    return EvalResults(
        total_samples=num_responses,
        completed_samples=sum(sample.error is None for sample in samples),
        scores=[_score(metric, row) for metric, row in rows if row.score is not None],
    )


def _score(metric: str, row: ArmScore) -> EvalScore:
    """The mean over samples of the mean over seeds, its interval, and the scorer's own summary."""
    values = {"mean": row.score, **row.summary}
    if row.interval is not None:
        values |= {"interval_low": row.interval.low, "interval_high": row.interval.high}
    return EvalScore(
        name=metric,
        scorer=metric,
        reducer="mean",
        scored_samples=row.responses,
        metrics={
            name: EvalMetric(name=name, value=value)
            for name, value in values.items()
            if value is not None
        },
    )


def _file_name(text: str) -> str:
    """An arm's name as a part of a file's name."""
    plain = re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "arm"
    return plain if plain == text else f"{plain}-{config_hash(text)[:6]}"

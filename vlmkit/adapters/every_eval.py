"""A run's records as Every Eval Ever has them: one evaluation per arm, and its responses by line.

Reference:
    Every Eval Ever, ``eval.schema.json`` and ``instance_level_eval.schema.json``, version 0.3.0,
    https://github.com/evaleval/every_eval_ever
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from vlmkit.adapters.every_eval_lines import SCHEMA_VERSION, Evaluation, instance_lines
from vlmkit.experiment.compare import compare
from vlmkit.experiment.comparison import ArmScore, Comparison, MetricTable
from vlmkit.experiment.manifest import Manifest, read_manifest
from vlmkit.experiment.provenance import config_hash
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.experiment.reopen import run_info, run_samples, run_scorers
from vlmkit.experiment.store import RECORDS
from vlmkit.files import make_folder, whole_file

_LOWER_IS_BETTER = ("chair",)


class _Lines(NamedTuple):
    """A file of responses, as the evaluation refers to it."""

    path: str
    checksum: str
    total_rows: int


def export_every_eval(folder: Path, out: Path, *, trust_code: bool = False) -> list[Path]:
    """Write a run as records of Every Eval Ever.

    Files stand where its data store has them, ``data/EXPERIMENT/DEVELOPER/MODEL/UUID.json`` with
    the responses beside it as ``UUID_samples.jsonl``, one line per response and metric. The UUID is
    made of the run and the arm, so a second export replaces the first.

    Args:
        folder: the run directory.
        out: the folder that ``data`` is made in.

    Returns:
        The evaluations' files, in the order of the arms.

    Raises:
        VlmkitError: no run directory, its data set has changed or is gone, or a file cannot be
            written.
    """
    manifest, info = read_manifest(folder), run_info(folder)
    samples, records = run_samples(folder, manifest), folder / RECORDS
    scorers = run_scorers(folder, manifest, trust_code=trust_code)
    summaries = {name: one.summarise for name, one in scorers.items()}
    comparison = compare([(info, read_scores(records))], summaries=summaries)
    texts = {sample.id: sample for sample in samples.texts()}
    written = []
    for arm in manifest.arms:
        evaluation = _evaluation(manifest, arm)
        where = Path("data", _part(manifest.name), *_model_parts(evaluation.model_id))
        name = str(uuid.UUID(bytes=bytes.fromhex(config_hash([evaluation.id, arm])), version=4))
        path, lines = out / where / f"{name}.json", where / f"{name}_samples.jsonl"
        make_folder(path.parent)
        own = (record for record in read_records(records) if record.arm == arm)
        file = _write_lines(out, lines, instance_lines(own, evaluation, texts))
        document = _document(manifest, evaluation, comparison, file, records.stat().st_mtime)
        with whole_file(path) as target:
            target.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))
        written.append(path)
    return written


def _evaluation(manifest: Manifest, arm: str) -> Evaluation:
    model = str(manifest.arms[arm].get("model"))
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None
    model_id = model if is_hub else f"vlmkit/{Path(model).name}"
    run = config_hash([manifest.hashes, manifest.created])
    return Evaluation(f"{manifest.name}/{model_id}/{run}/{arm}", arm, model_id, manifest.metrics)


def _write_lines(out: Path, path: Path, lines: Iterator[bytes]) -> _Lines:
    digest, number = hashlib.sha256(), 0
    with whole_file(out / path) as target, target.open("wb") as file:
        for line in lines:
            file.write(line)
            digest.update(line)
            number += 1
    return _Lines(path.as_posix(), digest.hexdigest(), number)


def _document(
    manifest: Manifest, evaluation: Evaluation, comparison: Comparison, lines: _Lines, made_s: float
) -> dict[str, Any]:
    config = manifest.arms[evaluation.arm]
    results = [
        _result(manifest, evaluation, table, row, comparison)
        for table in comparison.metrics
        for row in table.rows
        if row.arm == evaluation.arm and row.score is not None
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": evaluation.id,
        "evaluation_timestamp": str(int(datetime.fromisoformat(manifest.created).timestamp())),
        "retrieved_timestamp": str(int(made_s)),
        "source_metadata": {
            "source_name": manifest.name,
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "vlmkit", "version": manifest.versions.get("vlmkit", "unknown")},
        "model_info": {
            "name": str(config.get("model")),
            "id": evaluation.model_id,
            "inference_engine": {
                "name": "vlmkit",
                "version": manifest.versions.get("vlmkit", "unknown"),
            },
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                **{name: value for name, value in manifest.hashes.items() if "weights" in name},
            },
        },
        "evaluation_results": results,
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": lines.path,
            "hash_algorithm": "sha256",
            "checksum": lines.checksum,
            "total_rows": lines.total_rows,
        },
    }


def _result(
    manifest: Manifest,
    evaluation: Evaluation,
    table: MetricTable,
    row: ArmScore,
    comparison: Comparison,
) -> dict[str, Any]:
    config, kind = manifest.arms[evaluation.arm], str(manifest.metrics[table.metric].get("kind"))
    score: dict[str, Any] = {"score": row.score}
    score["details"] = {name: repr(value) for name, value in row.summary.items()}
    if row.interval is not None:
        score["uncertainty"] = {
            "confidence_interval": {
                "lower": row.interval.low,
                "upper": row.interval.high,
                "confidence_level": comparison.settings.confidence,
                "method": "bootstrap over samples",
            },
            "num_samples": row.samples,
            "num_bootstrap_samples": comparison.settings.resamples,
        }
    return {
        "evaluation_result_id": evaluation.result_id(table.metric),
        "evaluation_name": manifest.name,
        "source_data": {
            "dataset_name": str(manifest.dataset.get("kind")),
            "source_type": "other",
            "additional_details": _strings(
                {"hash": manifest.hashes.get("data", ""), **manifest.dataset}
            ),
        },
        "metric_config": {
            "metric_id": kind,
            "metric_name": table.metric,
            "metric_kind": kind,
            "lower_is_better": kind in _LOWER_IS_BETTER,
        },
        "score_details": score,
        "generation_config": {
            "generation_args": {
                "reasoning": bool(config.get("template", {}).get("enable_thinking")),
                "execution_command": " ".join(manifest.command),
            },
            "additional_details": _strings(
                {"arm": evaluation.arm, "seeds": manifest.seeds, "pipeline": config}
            ),
        },
    }


def _strings(values: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in values.items()
    }


def _model_parts(model_id: str) -> list[str]:
    return [_part(part) for part in model_id.split("/")]


def _part(text: str) -> str:
    """Text as one part of a path."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "unnamed"

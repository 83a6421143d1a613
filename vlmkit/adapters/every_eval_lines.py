"""Responses of a run as the lines that Every Eval Ever keeps of an evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from vlmkit.experiment.choices import choices_of
from vlmkit.experiment.records import Record, Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import answer_of

SCHEMA_VERSION = "0.3.0"


class Evaluation(NamedTuple):
    """What lines refer to."""

    id: str
    arm: str
    model_id: str
    metrics: Mapping[str, Mapping[str, Any]]  # by name, their configs

    def result_id(self, metric: str) -> str:
        """The identifier of one metric's result."""
        return f"{self.id}#{metric}"


def instance_lines(
    records: Iterator[Record], evaluation: Evaluation, samples: Mapping[str, Sample]
) -> Iterator[bytes]:
    """Yield one line per response and metric, with its line end.

    A response that could not be had has score 0 and its error; what a metric could not score is
    left out.

    Args:
        records: of one arm.
        evaluation: what they belong to.
        samples: by id; a record of another one is left out.
    """
    for record in records:
        sample = samples.get(record.sample)
        if sample is None:
            continue
        for metric, config in evaluation.metrics.items():
            scored = record.scores.get(metric, Scored())
            if record.error is None and scored.value is None:
                continue
            line = _line(record, sample, evaluation, metric, str(config.get("kind")), scored)
            yield msgspec.json.encode(line) + b"\n"


def _line(
    record: Record,
    sample: Sample,
    evaluation: Evaluation,
    metric: str,
    kind: str,
    scored: Scored,
) -> dict[str, Any]:
    value = 0.0 if scored.value is None else scored.value
    answer, mark = answer_of(record.text) if record.answered else "", "</think>"
    thinking = record.text.rpartition(mark)[0] if record.answered else record.text
    hashed = sample.question + "".join(sample.answers)
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": evaluation.id,
        "model_id": evaluation.model_id,
        "evaluation_name": metric,
        "evaluation_result_id": evaluation.result_id(metric),
        "sample_id": record.sample,
        "sample_hash": hashlib.sha256(hashed.encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": {
            "raw": sample.question,
            "reference": list(sample.answers),
            "choices": list(choices_of(sample.fields).values()) or None,
        },
        "output": {
            "raw": [record.text],
            "reasoning_trace": [thinking.removeprefix("<think>").strip()] if thinking else None,
        },
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": answer if scored.parsed is None else scored.parsed,
                "extraction_method": kind,
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": value, "is_correct": value == 1.0},
        "token_usage": {
            "input_tokens": record.prompt_tokens,
            "output_tokens": record.generation_tokens,
            "total_tokens": record.prompt_tokens + record.generation_tokens,
            "input_tokens_cache_read": record.cached_tokens,
        },
        "performance": {
            "latency_ms": 1000.0 * (record.prompt_s + record.generation_s),
            "generation_time_ms": 1000.0 * record.generation_s,
        },
        "error": record.error,
        "metadata": {"arm": record.arm, "seed": str(record.seed)},
    }

"""One sample with every arm's response to it, as the template shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlmkit.experiment.records import Record
from vlmkit.experiment.report.chosen import Limits
from vlmkit.experiment.report.passages import passages
from vlmkit.experiment.report.thumbnails import Thumbnails
from vlmkit.experiment.runinfo import RunInfo, SampleInfo
from vlmkit.experiment.shown import counted
from vlmkit.experiment.tables import number

_MAX_PARSED = 48  # characters of an answer that was read out of a text


def sample_card(
    name: str,
    disagree: bool,
    info: RunInfo,
    by_arm: Mapping[str, Sequence[Record]],
    thumbnails: Thumbnails,
    limits: Limits,
) -> dict[str, Any]:
    """What the template shows of one sample."""
    known = info.samples.get(name, SampleInfo(question=""))
    arms = []
    for arm in info.arms:
        latest = {record.seed: record for record in by_arm.get(arm, ())}
        shown = [latest[seed] for seed in sorted(latest)]
        arms.append((arm, [_response(record, info, limits) for record in shown]))
    return {
        "id": name,
        "disagree": disagree,
        "errors": any(response["error"] for _, responses in arms for response in responses),
        "images": [thumbnails.of(image) for image in known.images],
        "question": known.question,
        "answers": known.answers,
        "fields": [(key, value_text(value)) for key, value in known.fields.items()],
        "arms": arms,
    }


def _response(record: Record, info: RunInfo, limits: Limits) -> dict[str, Any]:
    scores = []
    for metric in info.metrics:
        scored = record.scores.get(metric)
        if scored is None:
            continue
        value = "no score" if scored.value is None else number(scored.value)
        kind = ""
        if scored.value in (0.0, 1.0):
            value, kind = f"{scored.value:.0f}", "right" if scored.value else "wrong"
        parsed = "" if scored.parsed is None else f" ({_short(scored.parsed)})"
        scores.append({"text": f"{metric} {value}{parsed}", "kind": kind})
    cost = counted(record.generation_tokens, "token")
    num_forced = sum(record.forced)
    if num_forced:
        cost += f", {num_forced} forced"
    if record.finish_reason is not None and record.error is None:
        kind = f": {record.finish_kind}" if record.finish_kind else ""
        cost += f", {record.finish_reason}{kind}"
    if not record.answered:
        cost += ", no answer: it ended while thinking"
    return {
        "seed": record.seed,
        "scores": scores,
        "cost": cost,
        "error": record.error,
        "passages": passages(record, limits.text_characters),
    }


def _short(parsed: str) -> str:
    text = " ".join(parsed.split())
    return text if len(text) <= _MAX_PARSED else text[: _MAX_PARSED - 1] + "…"


def value_text(value: Any) -> str:
    """A value of any type in one line.

    >>> value_text({"device": "cpu", "seeds": [0, 1], "clean": True})
    'device: cpu; seeds: 0, 1; clean: true'
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    return json.dumps(value, ensure_ascii=False, default=str)


def indented(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)

"""Which samples a report shows: all of them, or those where arms disagree before others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vlmkit.experiment.reading import ScoreLine
from vlmkit.experiment.records import Record, Scored


class Limits(NamedTuple):
    """How large a report becomes."""

    samples: int = 200
    image_px: int = 384  # longer side of a thumbnail
    image_bytes: int = 20_000_000  # of all thumbnails together, as they stand in the file
    text_characters: int = 20_000  # of one response


def report_samples(
    records: Iterable[Record | ScoreLine],
    metrics: Sequence[str],
    *,
    limits: Limits = Limits(),  # noqa: B008
) -> dict[str, bool]:
    """Choose the samples of a report, in one pass over the records.

    Args:
        records: all records of the run; where nothing is scored, whole ones, for their texts.
        metrics: its metrics; arms disagree where responses with the same
            seed differ under any of them.
        limits: at most ``limits.samples`` are chosen. Where arms disagree goes first, what is
            left is filled evenly from the others.

    Returns:
        Sample id -> whether arms disagree, in the order of the run.

    Example:
        >>> scores = [{"m": Scored(value=value)} for value in (0.0, 1.0, 1.0, 1.0)]
        >>> records = [Record(arm=arm, sample=sample, seed=0, scores=scores.pop(0))
        ...            for sample in ("x", "y") for arm in ("a", "b")]
        >>> report_samples(records, ["m"])
        {'x': True, 'y': False}
    """
    first: dict[tuple[str, int], object] = {}
    disagree: dict[str, bool] = {}
    for record in records:
        said = _said(record, metrics)
        disagree.setdefault(record.sample, False)
        if first.setdefault((record.sample, record.seed), said) != said:
            disagree[record.sample] = True
    apart = _spread([sample for sample in disagree if disagree[sample]], limits.samples)
    alike = [sample for sample in disagree if not disagree[sample]]
    chosen = {*apart, *_spread(alike, limits.samples - len(apart))}
    return {sample: differs for sample, differs in disagree.items() if sample in chosen}


def _said(record: Record | ScoreLine, metrics: Sequence[str]) -> object:
    """What is compared between responses; as a hash, for there may be millions."""
    if record.error is not None:
        return "error"
    scores = [record.scores.get(metric) for metric in metrics]
    if not any(scores) and isinstance(record, Record):
        return hash(record.text)
    return hash(tuple(_key(scored) for scored in scores))


def _key(scored: Scored | None) -> object:
    return None if scored is None else (scored.value, scored.parsed)


def _spread(samples: Sequence[str], most: int) -> list[str]:
    if len(samples) <= most:
        return list(samples)
    return [samples[place * len(samples) // most] for place in range(max(most, 0))]

"""Scores of records, when they are made and again later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import Samples
from vlmkit.experiment.records import Record, Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring import Scorer

_KEPT = 256  # samples; rows of as many may end side by side


def score(record: Record, scorers: Mapping[str, Scorer], sample: Sample) -> None:
    """Put every metric's score of a response into its record.

    One that ended while it was thinking is scored as an empty answer. A scorer that cannot score
    it leaves no value, and its reason in ``record.extra["unscored"]``.
    """
    record.scores = {}
    record.extra = {key: value for key, value in record.extra.items() if key != "unscored"}
    failed: dict[str, str] = {}
    for name, scorer in scorers.items():
        try:
            is_empty = scorer.after_thinking and not record.answered
            record.scores[name] = scorer.score(sample, "" if is_empty else record.text)
        except VlmkitError as error:
            record.scores[name] = Scored()
            failed[name] = str(error)
    if failed:
        record.extra = {**record.extra, "unscored": failed}


def text_reader(samples: Samples) -> Callable[[int], Sample]:
    """Return what reads a sample by its place, without its images; the last ones are kept."""

    @lru_cache(maxsize=_KEPT)
    def read(place: int) -> Sample:
        return next(samples[place : place + 1].texts())

    return read


def scored_again(
    records: Iterator[Record], scorers: Mapping[str, Scorer], samples: Samples, folder: Path
) -> Iterator[Record]:
    """Yield records with their scores made anew.

    Raises:
        VlmkitError: a record of a sample that the data set no longer has.
    """
    places = {name: place for place, name in enumerate(samples.ids)}
    read = text_reader(samples)
    for record in records:
        place = places.get(record.sample)
        if place is None:
            raise VlmkitError(f"{folder}: sample {record.sample!r} is no longer in its data set")
        if record.error is None:
            score(record, scorers, read(place))
        yield record

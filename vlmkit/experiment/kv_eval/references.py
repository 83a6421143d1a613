"""The tokens that all policies are fed: what the baseline generated, or the sample's answer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import Samples
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS
from vlmkit.processors import Processor


class Reference(NamedTuple):
    """What follows one sample's prompt."""

    place: int  # of the sample in the data set
    sample: str
    seed: int
    prompt_tokens: int
    token_ids: tuple[int, ...]
    error: str | None = None  # why there are none


def read_references(
    experiment: Experiment, folder: Path, samples: Samples, processor: Processor
) -> list[Reference]:
    """Read the tokens of all samples and seeds from the responses of a complete run.

    Short ones come first: rows of one length run side by side.

    Args:
        experiment: says which tokens.
        folder: the run directory.
        samples: of the run.
        processor: of its model.

    Raises:
        VlmkitError: a sample without an answer, where that is the reference.
    """
    places = {name: place for place, name in enumerate(samples.ids)}
    wanted = (experiment.lockstep or {}).get("reference")
    answers = _answers(samples, processor) if wanted == "answer" else None
    found = [
        _reference(record, places[record.sample], answers)
        for record in read_records(folder / RECORDS)
        if record.arm == experiment.baseline and record.sample in places
    ]
    return sorted(found, key=lambda one: (len(one.token_ids), one.place, one.seed))


def _reference(record: Record, place: int, answers: list[tuple[int, ...]] | None) -> Reference:
    tokens = tuple(record.token_ids) if answers is None else answers[place]
    error = record.error
    if error is None and not tokens:
        error = "the baseline's response has no tokens"
    return Reference(place, record.sample, record.seed, record.prompt_tokens, tokens, error)


def _answers(samples: Samples, processor: Processor) -> list[tuple[int, ...]]:
    found = []
    for sample in samples.texts():
        if not sample.answers or not sample.answers[0]:
            raise VlmkitError(
                f"{sample.where or sample.id}: lockstep.reference: this sample has no answer; name "
                "its key (dataset.answers_key), or use reference: generated"
            )
        ids = processor.tokenizer.encode(sample.answers[0], add_special_tokens=False)
        found.append(tuple(ids))
    return found

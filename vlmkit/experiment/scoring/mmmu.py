"""MMMU: questions with choices and open ones in one data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from vlmkit.experiment.choices import choices_of
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean, no_empty_answer, total
from vlmkit.experiment.scoring.multiple_choice import MultipleChoiceConfig, multiple_choice

BEFORE_ANSWERS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NO_ANSWERS = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,234
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # 1.2e3
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),  # 12.5
)


class MmmuConfig(ScoringConfig):
    """1 where MMMU's rules find the reference, a letter or an open answer, else 0."""

    kind: Literal["mmmu"] = "mmmu"
    parsing: Literal["mmmu", "lmms_eval"] = Field(
        default="mmmu", description="how letters are read: MMMU's own rules, or lmms-eval's"
    )
    if_unread: Literal["wrong", "guess"] = Field(
        default="wrong",
        description="what an answer without a letter counts as; guess: a choice drawn by the "
        "sample's id, since MMMU's rules draw one at random",
    )


def mmmu(config: MmmuConfig) -> Scorer:
    """Score a sample with choices as ``multiple_choice``, one without as an open question.

    Reference: Yue et al., arXiv:2311.16502; MMMU-Benchmark/MMMU, mmmu/utils/eval_utils.py
    (``parse_open_response`` and ``eval_open``).
    """
    letters = multiple_choice(
        MultipleChoiceConfig(parsing=config.parsing, if_unread=config.if_unread)
    )

    def score(sample: Sample, text: str) -> Scored:
        if choices_of(sample.fields):
            return letters.score(sample, text)
        said = list(read_open(text))
        hit = any(_holds(item, sample.answers) for item in said)
        return Scored(value=float(hit), parsed=str(said[0]), parts={"open": 1.0})

    def check(sample: Sample) -> str | None:
        return letters.check(sample) if choices_of(sample.fields) else no_empty_answer(sample)

    return Scorer(config.kind, ("answers",), score, _summarise, check)


def read_open(text: str) -> Iterator[str | float]:
    """What an answer says: the ends of its lines after words such as 'is', and their numbers.

    Example:
        >>> list(read_open("I add them.\\nThe answer is 12.5 cm"))
        ['12.5 cm', 12.5]
    """
    answer = text.strip().strip(".").lower()
    ends = list(_ends(answer)) or [answer]
    numbers = [number for end in ends for form in _NUMBERS for number in form.findall(end)]
    for item in (*ends, *numbers):
        yield from normalise_open(item)


def normalise_open(text: str) -> list[str | float]:
    """A number to two decimals, or a text in lower case; one letter counts beside a space only.

    Example:
        >>> normalise_open("1,000.456"), normalise_open("Paris"), normalise_open("x")
        ([1000.46], ['paris'], [' x', 'x '])
    """
    bare = text.strip()
    try:
        return [round(float(bare.replace(",", "")), 2)]
    except ValueError:
        lowered = bare.lower()
    return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def _ends(answer: str) -> Iterator[str]:
    *lines, last = answer.split("\n")
    for line, openings in (
        *((line, BEFORE_ANSWERS) for line in lines),
        (last, (*BEFORE_ANSWERS, "=")),
    ):
        shortest = ""
        for opening in openings:
            if opening in line:
                end = line.split(opening)[-1].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and shortest not in NO_ANSWERS:
            yield shortest


def _holds(said: str | float, answers: Sequence[str]) -> bool:
    """Whether a text has a reference in it, or a number is one."""
    wanted = [item for answer in answers for item in normalise_open(answer)]
    if isinstance(said, float):
        return said in wanted
    return any(isinstance(item, str) and item in said for item in wanted)


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    valued = [item for item in scored if item.value is not None]
    if not valued:
        return {}
    return {**mean(valued, "accuracy"), "unread_ratio": total(valued, "unread") / len(valued)}

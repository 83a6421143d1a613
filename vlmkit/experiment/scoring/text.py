"""Answers that are the reference, or hold it."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean, no_empty_answer

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactConfig(ScoringConfig):
    """1 where the answer is one of the references letter by letter, else 0."""

    kind: Literal["exact"] = "exact"


class NormalisedExactConfig(ScoringConfig):
    """As exact, without case, punctuation, articles and extra space: SQuAD's exact match."""

    kind: Literal["normalised_exact"] = "normalised_exact"


class ContainsConfig(ScoringConfig):
    """1 where one of the references is in the answer, else 0."""

    kind: Literal["contains"] = "contains"
    ignore_case: bool = Field(default=True, description="capitals don't matter")
    whole_words: bool = Field(
        default=False, description="'cat' is not in 'category'; false: any part of the text"
    )


def exact(config: ExactConfig) -> Scorer:
    """Compare letter by letter, without the space around the text."""

    def score(sample: Sample, text: str) -> Scored:
        answer = text.strip()
        hit = any(answer == reference.strip() for reference in sample.answers)
        return Scored(value=float(hit), parsed=answer)

    return Scorer(config.kind, ("answers",), score, _accuracy)


def normalised_exact(config: NormalisedExactConfig) -> Scorer:
    """Compare normalised texts; the best of several references counts.

    Reference: worksheet/evaluate-v1.1.py of SQuAD (Rajpurkar et al., arXiv:1606.05250),
    ``normalize_answer`` and ``exact_match_score``.
    """

    def score(sample: Sample, text: str) -> Scored:
        answer = normalise(text)
        hit = any(answer == normalise(reference) for reference in sample.answers)
        return Scored(value=float(hit), parsed=answer)

    return Scorer(config.kind, ("answers",), score, _accuracy)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no English articles, single spaces.

    Example:
        >>> normalise(" The  cat's (red) ball. ")
        'cats red ball'
    """
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def contains(config: ContainsConfig) -> Scorer:
    """Look for a reference in the answer; by default what inspect_ai calls ``includes``.

    Reference: UKGovernmentBEIS/inspect_ai, src/inspect_ai/scorer/_match.py.
    """

    def prepared(text: str) -> str:
        return text.casefold() if config.ignore_case else text

    def is_in(reference: str, text: str) -> bool:
        if not config.whole_words:
            return reference in text
        return re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", text) is not None

    def score(sample: Sample, text: str) -> Scored:
        answer = prepared(text)
        found = [item for item in sample.answers if is_in(prepared(item), answer)]
        return Scored(value=float(bool(found)), parsed=found[0] if found else None)

    return Scorer(config.kind, ("answers",), score, _accuracy, no_empty_answer)


def _accuracy(scored: Sequence[Scored]) -> dict[str, float]:
    return mean(scored, "accuracy")

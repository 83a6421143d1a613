"""ANLS: how much of the reference's text the answer gets right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from vlmkit.declare.configbase import Float
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean


class AnlsConfig(ScoringConfig):
    """Average normalised Levenshtein similarity, of the reference that is closest."""

    kind: Literal["anls"] = "anls"
    threshold: Float = Field(
        default=0.5, ge=0, le=1, description="a similarity below this counts as 0"
    )


def anls(config: AnlsConfig) -> Scorer:
    """1 − edits / length of the longer text, without case and extra space; 0 below the threshold.

    Reference: Biten et al., arXiv:1905.13648; EvolvingLMMs-Lab/lmms-eval, lmms_eval/api/metrics.py
    (``anls``), which divides by the length of the texts as they are written.
    """

    def score(sample: Sample, text: str) -> Scored:
        answer = text.strip()
        similarity = max(similarity_of(answer, reference) for reference in sample.answers)
        value = 0.0 if similarity < config.threshold else similarity
        return Scored(value=value, parsed=answer)

    return Scorer(config.kind, ("answers",), score, _summarise)


def similarity_of(answer: str, reference: str) -> float:
    """One minus the edits over the length, in 0..1.

    Example:
        >>> similarity_of("Halo  world", "hello world")
        0.8181818181818181
    """
    length = max(len(answer), len(reference))
    return 1.0 - edit_distance(_plain(answer), _plain(reference)) / length if length else 1.0


def edit_distance(one: str, other: str) -> int:
    """The fewest insertions, deletions and replacements between two texts (Levenshtein).

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    return mean(scored, "anls")

"""ChartQA's relaxed accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from vlmkit.declare.configbase import Float
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean


class ChartQAConfig(ScoringConfig):
    """1 where a number is within 5% of the reference, or a text is it without regard to case."""

    kind: Literal["chartqa_relaxed"] = "chartqa_relaxed"
    tolerance: Float = Field(default=0.05, ge=0, lt=1, description="relative to the reference")


def chartqa_relaxed(config: ChartQAConfig) -> Scorer:
    """Compare numbers with a tolerance and texts without case; the best reference counts.

    Reference: Masry et al., arXiv:2203.10244, section 5.1; EvolvingLMMs-Lab/lmms-eval,
    lmms_eval/tasks/chartqa/utils.py (``relaxed_correctness``).
    """

    def score(sample: Sample, text: str) -> Scored:
        answer = text.strip()
        hit = any(is_close(answer, item.strip(), config.tolerance) for item in sample.answers)
        return Scored(value=float(hit), parsed=answer)

    return Scorer(config.kind, ("answers",), score, _summarise)


def is_close(answer: str, reference: str, tolerance: float) -> bool:
    """Whether an answer is right; a reference of 0 must be met exactly, as text.

    Example:
        >>> is_close("52", "50", 0.05), is_close("53", "50", 0.05), is_close("5%", "0.05", 0.05)
        (True, False, True)
    """
    given, wanted = _number(answer), _number(reference)
    if given is None or not wanted:
        return answer.lower() == reference.lower()
    return abs(given - wanted) / abs(wanted) <= tolerance


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    return mean(scored, "relaxed_accuracy")

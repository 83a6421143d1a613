"""Scorers of a third party, for the tests of ``kind: external``."""

from __future__ import annotations

from typing import Any

from vlmkit.experiment.scoring import Sample, Scored, Scorer, mean


def words(limit: int = 3, fails: bool = False, returns: Any = None) -> Scorer:
    """1 where an answer has at most so many words."""

    def score(sample: Sample, text: str) -> Any:
        if fails:
            raise KeyError("two\nlines")
        if returns is not None:
            return returns
        return Scored(value=float(len(text.split()) <= limit), parsed=text)

    return Scorer("words", (), score, lambda scored: mean(scored, "short"))


def not_a_scorer() -> dict[str, int]:
    return {}

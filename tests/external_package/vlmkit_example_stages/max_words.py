"""A metric that likes answers short, and is wrong in the ways it is asked to."""

from __future__ import annotations

from typing import Any

from vlmkit.experiment.scoring import Sample, Scored, Scorer, mean


def max_words(*, num_words: int = 3, fails: bool = False, returns: Any = None) -> Scorer:
    """1 where an answer has at most ``num_words`` words, else 0."""

    def score(sample: Sample, text: str) -> Any:
        if fails:
            raise KeyError("two\nlines")
        if returns is not None:
            return returns
        return Scored(value=float(len(text.split()) <= num_words), parsed=text)

    return Scorer("max_words", (), score, lambda scored: mean(scored, "short"))


def not_a_scorer() -> dict[str, int]:
    """What no metric can be made of."""
    return {}

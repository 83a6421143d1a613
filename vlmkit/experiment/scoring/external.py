"""A scorer of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer

GROUP = "vlmkit.scoring"
HOME = "vlmkit.experiment.scoring"


class ExternalScorerConfig(External):
    """A scorer from another package: what makes it, and the arguments for that."""

    name: str | None = Field(
        default=None, min_length=1, description="the metric's name in tables; null: its own"
    )
    after_thinking: bool = Field(
        default=True,
        description="the answer is what comes after the last </think>; false: the whole text",
    )

    __hash__ = External.__hash__


def external(config: ExternalScorerConfig) -> Scorer:
    """Make the scorer that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a ``Scorer``.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; while scoring,
            what it raises, or a result of another type.

    Example:
        >>> factory = "experiments.own_scorer:brevity"
        >>> scorer = external(ExternalScorerConfig(factory=factory, config={"words": 2}))
        >>> scorer.score(Sample("1", "How many?"), "There are four of them").value
        0.4
    """
    scorer = make_external(config, group=GROUP, result=Scorer, home=HOME)
    where = f"external: scorer {scorer.name!r} of factory {config.factory!r}"

    def score(sample: Sample, text: str) -> Scored:
        try:
            scored = scorer.score(sample, text)
        except Exception as error:
            why = " ".join(str(error).split())
            raise VlmkitError(
                f"{where} failed for sample {sample.id!r}: {type(error).__name__}: {why}"
            ) from error
        if not isinstance(scored, Scored):
            raise VlmkitError(f"{where} returned {type(scored).__name__}, not a Scored")
        return scored

    def summarise(scored: Sequence[Scored]) -> dict[str, float]:
        summary = scorer.summarise(scored)
        if not isinstance(summary, dict):
            raise VlmkitError(f"{where}: its summary is {type(summary).__name__}, not a dict")
        return summary

    return scorer._replace(score=score, summarise=summarise)

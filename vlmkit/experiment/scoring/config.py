"""The kinds of scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.anls import AnlsConfig, anls
from vlmkit.experiment.scoring.base import Scorer, answer_of
from vlmkit.experiment.scoring.chair import ChairConfig, chair
from vlmkit.experiment.scoring.chartqa import ChartQAConfig, chartqa_relaxed
from vlmkit.experiment.scoring.external import ExternalScorerConfig, external
from vlmkit.experiment.scoring.mmmu import MmmuConfig, mmmu
from vlmkit.experiment.scoring.multiple_choice import MultipleChoiceConfig, multiple_choice
from vlmkit.experiment.scoring.ocrbench import OCRBenchConfig, ocrbench
from vlmkit.experiment.scoring.pope import PopeConfig, pope
from vlmkit.experiment.scoring.text import (
    ContainsConfig,
    ExactConfig,
    NormalisedExactConfig,
    contains,
    exact,
    normalised_exact,
)
from vlmkit.experiment.scoring.vqa import VqaConfig, vqa_accuracy

ScorerConfig = Annotated[
    ExactConfig
    | NormalisedExactConfig
    | ContainsConfig
    | PopeConfig
    | MultipleChoiceConfig
    | MmmuConfig
    | ChartQAConfig
    | OCRBenchConfig
    | AnlsConfig
    | VqaConfig
    | ChairConfig
    | ExternalScorerConfig,
    Field(discriminator="kind"),
]
"""Any scorer's config, told apart by ``kind``."""


def make_scorer(config: ScorerConfig, base: Path | None = None) -> Scorer:
    """Make a scorer, which looks at the answer after the thinking unless it is told otherwise.

    Args:
        config: which one.
        base: the folder of the file that names it, for paths in it; None: the current one.

    Raises:
        VlmkitError: a file of it can't be read, or an external one can't be made.

    Example:
        >>> scorer = make_scorer(ExactConfig())
        >>> scorer.score(Sample("1", "2 + 2?", answers=("4",)), "<think>2 2 4</think>4").value
        1.0
    """
    scorer = _make(config, Path() if base is None else base)
    if config.name is not None:
        scorer = scorer._replace(name=config.name)
    if not config.after_thinking:
        return scorer
    whole = scorer.score

    def score(sample: Sample, text: str) -> Scored:
        return whole(sample, answer_of(text))

    return scorer._replace(score=score, after_thinking=True)


def _make(config: ScorerConfig, base: Path) -> Scorer:
    match config:
        case ExactConfig():
            return exact(config)
        case NormalisedExactConfig():
            return normalised_exact(config)
        case ContainsConfig():
            return contains(config)
        case PopeConfig():
            return pope(config)
        case MultipleChoiceConfig():
            return multiple_choice(config)
        case MmmuConfig():
            return mmmu(config)
        case ChartQAConfig():
            return chartqa_relaxed(config)
        case OCRBenchConfig():
            return ocrbench(config)
        case AnlsConfig():
            return anls(config)
        case VqaConfig():
            return vqa_accuracy(config)
        case ChairConfig():
            return chair(config, base)
        case ExternalScorerConfig():
            return external(config)

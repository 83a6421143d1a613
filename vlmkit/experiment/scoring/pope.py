"""POPE: yes or no, and how often yes is said of what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean, ratio, total
from vlmkit.experiment.shown import short


class PopeConfig(ScoringConfig):
    """Yes/no questions: accuracy, precision, recall and F1 of yes, and the share of yes."""

    kind: Literal["pope"] = "pope"


def pope(config: PopeConfig) -> Scorer:
    """Read yes or no as POPE does, and count.

    Reference: Li et al., arXiv:2305.10355; AoiDragon/POPE, evaluate.py. Where nothing is said or
    asked with yes, precision, recall and F1 are 0, as in EvolvingLMMs-Lab/lmms-eval,
    lmms_eval/tasks/pope/utils.py.
    """

    def score(sample: Sample, text: str) -> Scored:
        said, label = read_yes_no(text), _label(sample)
        parts = {"said_yes": float(said == "yes"), "is_yes": float(label == "yes")}
        parts["true_yes"] = float(said == label == "yes")
        return Scored(value=float(said == label), parsed=said, parts=parts)

    def check(sample: Sample) -> str | None:
        if _label(sample) in ("yes", "no"):
            return None
        return f"needs the answer yes or no, got {short(sample.answers[0])}"

    return Scorer(config.kind, ("answers",), score, _summarise, check)


def read_yes_no(text: str) -> str:
    """``"no"`` where the first sentence has the word No, no or not, else ``"yes"``.

    Example:
        >>> read_yes_no("No, there is none."), read_yes_no("There is a dog. Not a cat.")
        ('no', 'yes')
    """
    sentence, _, _ = text.strip().partition(".")
    words = sentence.replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def _label(sample: Sample) -> str:
    return sample.answers[0].strip().lower()


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    valued = [item for item in scored if item.value is not None]
    if not valued:
        return {}
    true_yes, said_yes = total(valued, "true_yes"), total(valued, "said_yes")
    precision = ratio(true_yes, said_yes)
    recall = ratio(true_yes, total(valued, "is_yes"))
    return {
        **mean(valued, "accuracy"),
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * precision * recall, precision + recall),
        "yes_ratio": said_yes / len(valued),
    }

"""What a scorer is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pydantic import Field

from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.experiment.choices import choices_of
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shown import listed

NO_ANSWER = (
    "needs an answer, this sample has none; name its key (dataset.answers_key) or leave the metric "
    "out"
)
NO_CHOICES = (
    "needs choices, this sample has none; they are a list under 'choices' or 'options', or columns "
    "A, B, …"
)
EMPTY_ANSWER = "can't score an empty answer, which is in every text; leave this sample out"
THINKING_START, THINKING_END = "<think>", "</think>"


class ScoringConfig(StageConfig):
    """What every scorer can be told."""

    name: str | None = Field(
        default=None, min_length=1, description="the metric's name in tables; null: its kind"
    )
    after_thinking: bool = Field(
        default=True,
        description="the answer is what comes after the last </think>; false: the whole text",
    )


def _any_sample(sample: Sample) -> str | None:
    """Nothing more is asked of a sample than its fields."""
    return None


class Scorer(NamedTuple):
    """How responses are scored: pure functions of a sample and a text."""

    name: str
    needs: tuple[str, ...]  # "answers", "choices", or the name of a field of the samples
    score: Callable[[Sample, str], Scored]
    summarise: Callable[[Sequence[Scored]], dict[str, float]]
    # an arm's numbers, the first one being the mean of the values; {} where none has a value
    check: Callable[[Sample], str | None] = _any_sample  # why a sample can't be scored
    after_thinking: bool = False  # ``score`` looks at what comes after the thinking alone


def answer_of(text: str) -> str:
    """The answer in a response: what follows the last ``</think>``, without space around it.

    A response that opens ``<think>`` and never ends it has no answer. One that holds neither is an
    answer, unless its prompt opens the thinking: see :func:`has_answer`.

    Example:
        >>> answer_of("<think>1 + 1</think>\\n2"), answer_of("<think>1 + 1"), answer_of("2 ")
        ('2', '', '2')
    """
    _, mark, answer = text.rpartition(THINKING_END)
    if not mark and THINKING_START in text:
        return ""
    return answer.strip()


def opens_thinking(prompt: str) -> bool:
    """Whether a response to a formatted prompt begins with thinking.

    Example:
        >>> opens_thinking("<user>Hi<assistant><think>"), opens_thinking("<think></think>")
        (True, False)
    """
    return prompt.rfind(THINKING_START) > prompt.rfind(THINKING_END)


def has_answer(text: str, *, opened: bool) -> bool:
    """Whether a response came to its answer: it does not end while it thinks.

    Args:
        text: the response.
        opened: it begins with thinking, which its prompt opened.

    Example:
        >>> has_answer("2 and 2", opened=True), has_answer("2</think>4", opened=True)
        (False, True)
    """
    return THINKING_END in text or not (opened or THINKING_START in text)


def mean(scored: Iterable[Scored], name: str) -> dict[str, float]:
    """The mean value under a name; nothing where there is no value.

    Example:
        >>> mean([Scored(value=1.0), Scored(value=0.0), Scored()], "accuracy")
        {'accuracy': 0.5}
    """
    values = [item.value for item in scored if item.value is not None]
    return {name: sum(values) / len(values)} if values else {}


def total(scored: Iterable[Scored], part: str) -> float:
    """The sum of one part.

    >>> total([Scored(parts={"hits": 1.0}), Scored()], "hits")
    1.0
    """
    return sum(item.parts.get(part, 0.0) for item in scored)


def ratio(numerator: float, denominator: float) -> float:
    """A quotient that is 0 where there is nothing to divide by, as the harnesses have it."""
    return numerator / denominator if denominator else 0.0


def check_samples(scorers: Sequence[Scorer], samples: Iterable[Sample]) -> None:
    """Refuse data that a scorer can't score, before anything is generated.

    Args:
        scorers: the metrics of an experiment.
        samples: all of its samples, for which ``Samples.texts()`` is enough.

    Raises:
        VlmkitError: names the sample's file and line, the metric, and what it lacks.
    """
    for sample in samples:
        for scorer in scorers:
            lacks = next(filter(None, (_lacks(sample, need) for need in scorer.needs)), None)
            complaint = lacks or scorer.check(sample)
            if complaint is not None:
                raise VlmkitError(f"{sample.where}: metric {scorer.name!r} {complaint}")


def _lacks(sample: Sample, need: str) -> str | None:
    if need == "answers":
        return None if sample.answers else NO_ANSWER
    if need == "choices":
        return None if choices_of(sample.fields) else NO_CHOICES
    if need in sample.fields:
        return None
    return f"needs the field {need!r} (fields: {listed(sample.fields)})"


def no_empty_answer(sample: Sample) -> str | None:
    """The complaint of a scorer that looks for the answer in the text."""
    return None if all(answer.strip() for answer in sample.answers) else EMPTY_ANSWER

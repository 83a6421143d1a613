"""VQA accuracy: how many of the people who were asked gave this answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean

MIN_ANSWERS = 4  # with fewer, no answer could reach 1
ENOUGH = 3  # people who say the same
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _numbers() -> dict[str, str]:
    words = _NUMBER_WORDS.split()
    return {word: str(number) for number, word in enumerate(words)} | {"none": "0"}


def _slips() -> dict[str, str]:
    """Each contraction by what it looks like with one apostrophe missing."""
    slips = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTIONS.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    return slips | {"somebody'd": "somebodyd"}  # so in the original


NUMBERS = _numbers()
CONTRACTIONS = _slips()


class VqaConfig(ScoringConfig):
    """min(1, people who gave this answer / 3), averaged over leaving each of them out."""

    kind: Literal["vqa_accuracy"] = "vqa_accuracy"


def vqa_accuracy(config: VqaConfig) -> Scorer:
    """Compare processed answers with those of several people.

    Reference: Antol et al., arXiv:1505.00468; EvolvingLMMs-Lab/lmms-eval,
    lmms_eval/tasks/vqav2/utils.py and lmms_eval/tasks/_task_utils/vqa_eval_metric.py;
    open-compass/VLMEvalKit, vlmeval/dataset/utils/vqa_eval.py.
    """

    def score(sample: Sample, text: str) -> Scored:
        answer, references = process(text), [process(item) for item in sample.answers]
        same = references.count(answer)
        others = [same - (reference == answer) for reference in references]
        value = sum(min(1.0, count / ENOUGH) for count in others) / len(others)
        return Scored(value=value, parsed=answer)

    def check(sample: Sample) -> str | None:
        if len(sample.answers) >= MIN_ANSWERS:
            return None
        return (
            f"needs the answers of at least {MIN_ANSWERS} people (VQA has 10), this sample has "
            f"{len(sample.answers)}; use normalised_exact"
        )

    return Scorer(config.kind, ("answers",), score, _summarise, check)


def process(text: str) -> str:
    """An answer as VQA compares it.

    Example:
        >>> process("The two dogs."), process("1,000.50"), process("Dont"), process("red/blue")
        ('2 dogs', '1000.50', "don't", 'red blue')
    """
    plain = text.replace("\n", " ").replace("\t", " ").strip()
    return _process_words(_process_punctuation(plain))


def _process_punctuation(text: str) -> str:
    """Marks beside a space go, others become one; full stops go that are in no number."""
    has_number = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in PUNCTUATION:
        drops = has_number or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if drops else " ")
    return _FULL_STOP.sub("", out)


def _process_words(text: str) -> str:
    """Numbers as digits, no articles, apostrophes where they belong."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    return mean(scored, "accuracy")

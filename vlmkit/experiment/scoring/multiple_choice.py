"""The letter of a choice, read out of an answer in the way of a public harness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from vlmkit.experiment.choices import choices_of
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean, total
from vlmkit.experiment.shown import listed, short

Choices = Mapping[str, str]
"""Letter -> text."""
MIN_WORDS = 6  # from so many on, a choice's text may stand for its letter
OPENINGS = ("(", "option ", "the answer is ")


class MultipleChoiceConfig(ScoringConfig):
    """1 where the letter that is read out of the answer is the right one, else 0."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    parsing: Literal["mmmu", "lmms_eval", "mmstar"] = Field(
        default="mmmu",
        description="mmmu: MMMU's own rules; lmms_eval: the looser ones of its MMMU task, where "
        "'A.' counts; mmstar: only a letter at the beginning",
    )
    if_unread: Literal["wrong", "guess"] = Field(
        default="wrong",
        description="what an answer without a letter counts as; guess: a choice drawn by the "
        "sample's id, since MMMU's rules draw one at random",
    )


def multiple_choice(config: MultipleChoiceConfig) -> Scorer:
    """Read a letter and compare it with the reference, a letter or the text of a choice.

    Reference: MMMU-Benchmark/MMMU, mmmu/utils/eval_utils.py (``parse_multi_choice_response``);
    EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/mmmu/utils.py; MMStar-Benchmark/MMStar,
    eval/vlmeval/evaluate/mmstar.py.
    """
    read = _READERS[config.parsing]

    def score(sample: Sample, text: str) -> Scored:
        choices, right = choices_of(sample.fields), _right(sample)
        letter = read(text, choices)
        guessed = letter is None
        if guessed and config.if_unread == "guess":
            letter = _guess(sample, choices)
        return Scored(
            value=float(letter in right), parsed=letter, parts={"unread": 1.0} if guessed else {}
        )

    def check(sample: Sample) -> str | None:
        choices = choices_of(sample.fields)
        if all(letter in choices for letter in _right(sample)):
            return None
        return f"needs one of the choices {listed(choices)}, got {short(sample.answers[0])}"

    return Scorer(config.kind, ("answers", "choices"), score, _summarise, check)


def read_mmmu(text: str, choices: Choices) -> str | None:
    """MMMU's own rules: the last of ``(A)``, else of a free-standing ``A``, else of a text.

    Example:
        >>> read_mmmu("Not (A) but (B).", {"A": "cat", "B": "dog"})
        'B'
    """
    padded = _padded(text)
    return _last_bracketed(padded, choices) or _last_letter(
        padded, [letter for letter in choices if f" {letter} " in padded], choices
    )


def read_lmms_eval(text: str, choices: Choices) -> str | None:
    """The rules of lmms-eval's MMMU task: a letter also counts before a space or a full stop.

    Example:
        >>> text, choices = "B.\\nIt barks", {"A": "cat", "B": "dog"}
        >>> read_lmms_eval(text, choices), read_mmmu(text, choices)
        ('B', None)
    """
    padded = _padded(text)
    for mark in (" ", "."):
        letters = [letter for letter in choices if f"{letter}{mark}" in padded]
        if letters:
            break
    return _last_bracketed(padded, choices) or _last_letter(padded, letters, choices)


def read_mmstar(text: str, choices: Choices) -> str | None:
    """MMStar's rules: the letter that the answer begins with, alone or after a set opening.

    Example:
        >>> read_mmstar("The answer is b", {"A": "", "B": ""}), read_mmstar("It is B", {"B": ""})
        ('B', None)
    """
    letters = {letter.lower(): letter for letter in choices}
    plain = text.lower().strip().replace("\n", " ")
    for opening in ("", *OPENINGS):
        if plain.startswith(opening):
            letter = letters.get(plain[len(opening) : len(opening) + 1])
            if letter is not None:
                return letter
    return None


_READERS: dict[str, Callable[[str, Choices], str | None]] = {
    "mmmu": read_mmmu,
    "lmms_eval": read_lmms_eval,
    "mmstar": read_mmstar,
}


def _padded(text: str) -> str:
    for mark in ",.!?;:'":
        text = text.strip(mark)
    return f" {text} "


def _last_bracketed(padded: str, choices: Choices) -> str | None:
    letters = [letter for letter in choices if f"({letter})" in padded]
    return max(letters, key=lambda letter: padded.rfind(f"({letter})"), default=None)


def _last_letter(padded: str, letters: Sequence[str], choices: Choices) -> str | None:
    """The last free-standing one of these letters; without any, the text that comes last.

    Of several that all stand elsewhere the first counts, as with ``argmax`` in the harnesses.
    """
    if letters:
        return max(letters, key=lambda letter: padded.rfind(f" {letter} "))
    lowered = padded.lower()
    if len(lowered.split()) < MIN_WORDS:
        return None
    named = [letter for letter in choices if choices[letter].lower() in lowered]
    return max(named, key=lambda letter: lowered.rfind(choices[letter].lower()), default=None)


def _right(sample: Sample) -> set[str]:
    """The letters of the references."""
    choices = choices_of(sample.fields)
    letters = {text.strip(): letter for letter, text in choices.items()}
    letters |= {letter.lower(): letter for letter in choices}
    letters |= {letter: letter for letter in choices}
    return {letters.get(answer.strip(), answer) for answer in sample.answers}


def _guess(sample: Sample, choices: Choices) -> str:
    digest = hashlib.sha256(sample.id.encode()).digest()
    return list(choices)[int.from_bytes(digest[:8], "big") % len(choices)]


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    valued = [item for item in scored if item.value is not None]
    if not valued:
        return {}
    return {**mean(valued, "accuracy"), "unread_ratio": total(valued, "unread") / len(valued)}

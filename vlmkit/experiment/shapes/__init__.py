"""Drawn images of coloured shapes and digits, and questions about them with known answers."""

from __future__ import annotations

from random import Random

from vlmkit.experiment.shapes.question import Question
from vlmkit.experiment.shapes.questions import ask

HELD_OUT_SEED = 1_000_003
"""The stream of questions that the embedded model was never trained on."""
STREAM = 1 << 40


def question_at(seed: int, index: int) -> Question:
    """The question number ``index`` of the stream ``seed``, a pure function of both.

    Example:
        >>> question_at(HELD_OUT_SEED, 3) == question_at(HELD_OUT_SEED, 3)
        True
    """
    return ask(Random(seed * STREAM + index))

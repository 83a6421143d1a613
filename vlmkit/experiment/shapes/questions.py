"""The mix of question kinds, and a question drawn from it."""

from __future__ import annotations

from random import Random

from vlmkit.experiment.shapes.counting import (
    compare,
    count_all,
    count_both,
    count_colour,
    count_shape,
    same_colour,
)
from vlmkit.experiment.shapes.digits import add_digits, read_number
from vlmkit.experiment.shapes.drawing import Scene
from vlmkit.experiment.shapes.looking import colour_of, describe, exists, shape_of, unanswerable
from vlmkit.experiment.shapes.question import Kind, Question
from vlmkit.experiment.shapes.relations import beside, chain, order

Mix = tuple[tuple[Kind, float], ...]
MIX: Mix = (
    (count_all, 5),
    (count_colour, 5),
    (count_shape, 5),
    (count_both, 14),
    (compare, 10),
    (colour_of, 5),
    (shape_of, 5),
    (exists, 5),
    (beside, 8),
    (order, 6),
    (chain, 11),
    (same_colour, 9),
    (read_number, 4),
    (add_digits, 11),
    (describe, 6),
    (unanswerable, 3),
)
"""What the model is for, and measured on."""

PRACTICE: Mix = (
    (count_all, 3),
    (count_colour, 4),
    (count_shape, 4),
    (count_both, 24),
    (compare, 8),
    (colour_of, 3),
    (shape_of, 3),
    (exists, 14),
    (beside, 4),
    (order, 14),
    (chain, 6),
    (same_colour, 5),
    (read_number, 4),
    (add_digits, 13),
    (describe, 4),
    (unanswerable, 2),
)
"""For the last part of training: more of the kinds that are learnt last."""

MIXES: dict[str, Mix] = {"all": MIX, "practice": PRACTICE}
DIGIT_KINDS = (read_number, add_digits)


def _careless(rng: Random, question: Question) -> Question:
    """Sometimes drop the capital or the final mark."""
    text = question.question
    if rng.random() < 0.08:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.08:
        text = text.rstrip("?.")
    return question._replace(question=text)


def _draw(rng: Random, kinds: Mix, scene: Scene | None) -> Question:
    while True:
        kind = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        question = kind(rng, scene)
        if question is not None:
            return _careless(rng, question)


def ask(rng: Random, mix: Mix = MIX) -> Question:
    """A question of a kind drawn from `mix` about a scene made for it."""
    return _draw(rng, mix, None)


def ask_about(rng: Random, scene: Scene, mix: Mix = MIX) -> Question:
    """A further question about a scene."""
    if scene.items[0].name.isdigit():
        return _draw(rng, ((read_number, 1), (add_digits, 2)), scene)
    return _draw(rng, tuple((k, w) for k, w in mix if k not in DIGIT_KINDS), scene)

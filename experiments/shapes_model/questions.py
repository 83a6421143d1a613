"""The mix of question kinds, and a question drawn from it."""

from __future__ import annotations

from random import Random

from experiments.shapes_model.counting import (
    compare,
    count_all,
    count_both,
    count_colour,
    count_shape,
    same_colour,
)
from experiments.shapes_model.digits import add_digits, read_number
from experiments.shapes_model.drawing import Scene
from experiments.shapes_model.looking import colour_of, describe, exists, shape_of, unanswerable
from experiments.shapes_model.question import Kind, Question
from experiments.shapes_model.relations import beside, chain, order

MIX: tuple[tuple[Kind, float], ...] = (
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


DIGIT_KINDS: tuple[tuple[Kind, float], ...] = ((read_number, 1), (add_digits, 2))
SHAPE_KINDS = tuple((kind, weight) for kind, weight in MIX if kind not in (read_number, add_digits))


def _careless(rng: Random, question: Question) -> Question:
    """Sometimes drop the capital or the final mark."""
    text = question.question
    if rng.random() < 0.08:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.08:
        text = text.rstrip("?.")
    return question._replace(question=text)


def _draw(rng: Random, kinds: tuple[tuple[Kind, float], ...], scene: Scene | None) -> Question:
    while True:
        kind = rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        question = kind(rng, scene)
        if question is not None:
            return _careless(rng, question)


def ask(rng: Random) -> Question:
    """A question of a kind drawn from `MIX` about a scene made for it."""
    return _draw(rng, MIX, None)


def ask_about(rng: Random, scene: Scene) -> Question:
    """A further question about a scene."""
    return _draw(rng, DIGIT_KINDS if scene.items[0].name.isdigit() else SHAPE_KINDS, scene)

"""What a question is, and the vocabulary that all kinds share.

Cells are named like on a chess board read from the top: row letter a..d, column 1..4. A count
carries its running tally, a sum its running total, a relation the cells it passes through, so every
step of a thought needs one look at the image and one at the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from vlmkit.experiment.shapes.drawing import Item, Scene
from vlmkit.experiment.shapes.scenes import Look, random_look

MAX_OBJECTS = 9


class Question(NamedTuple):
    """A scene and what is asked about it; `thinking` begins with a space, `answer` does not."""

    kind: str
    scene: Scene
    question: str
    thinking: str
    answer: str


def cell_name(item: Item) -> str:
    """The cell of an object: a1 is the top left, d4 the bottom right."""
    return f"{'abcd'[item.row]}{item.column + 1}"


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def look(item: Item) -> str:
    return f"{item.colour} {item.name}"


def tally(items: Sequence[Item], describe: Callable[[Item], str] | None = None) -> str:
    """`` a1 1 c3 2``: the cells of `items` with a running count, `` 0`` if there are none."""
    if not items:
        return " 0"
    words = [cell_name(i) + (f" {describe(i)}" if describe else "") for i in items]
    return "".join(f" {word} {count}" for count, word in enumerate(words, 1))


def others(rng: Random, count: int, allowed: Callable[[Look], bool]) -> list[Look]:
    looks: list[Look] = []
    while len(looks) < count:
        candidate = random_look(rng)
        if allowed(candidate):
            looks.append(candidate)
    return looks


def some(rng: Random, low: int = 1, high: int = MAX_OBJECTS) -> list[Look]:
    return [random_look(rng) for _ in range(rng.randint(low, high))]


def named(rng: Random, scene: Scene) -> Look:
    """A colour and a shape to ask about, mostly seen in the scene though not always together."""
    colour, shape = random_look(rng)
    if rng.random() < 0.85:
        colour = rng.choice(scene.items).colour
    if rng.random() < 0.85:
        shape = rng.choice(scene.items).name
    return colour, shape


Kind = Callable[[Random, Scene | None], Question | None]
"""Asks about a given scene (None if the question makes no sense there) or about a new one."""

"""Questions about where objects are."""

from __future__ import annotations

from random import Random

from vlmkit.experiment.shapes import phrases
from vlmkit.experiment.shapes.drawing import GRID, Item, Scene
from vlmkit.experiment.shapes.question import (
    Question,
    cell_name,
    look,
    some,
)
from vlmkit.experiment.shapes.scenes import scatter

TRIES = 200
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def neighbour(scene: Scene, item: Item, direction: str) -> Item | None:
    """The nearest object in the same row (left, right) or column (above, below)."""
    down, across = DIRECTIONS[direction]
    row, column = item.row + down, item.column + across
    while 0 <= row < GRID and 0 <= column < GRID:
        for other in scene.items:
            if (other.row, other.column) == (row, column):
                return other
        row, column = row + down, column + across
    return None


def _reference(rng: Random, scene: Scene) -> list[tuple[Item, str]]:
    """Objects that a name denotes uniquely, with that name."""
    names = [i.name for i in scene.items]
    looks = [look(i) for i in scene.items]
    named = [(i, i.name) for i in scene.items if names.count(i.name) == 1]
    return named + [
        (i, look(i)) for i in scene.items if looks.count(look(i)) == 1 and rng.random() < 0.5
    ]


def beside(rng: Random, scene: Scene | None = None) -> Question | None:
    """What is left of (right of, above, below) an object."""
    given = scene
    for _ in range(TRIES):
        scene = given or scatter(rng, some(rng, 3), free_share=0.2)
        options = _reference(rng, scene)
        if not options:
            continue
        item, name = rng.choice(options)
        direction = rng.choice(tuple(DIRECTIONS))
        target = neighbour(scene, item, direction)
        if target is None and rng.random() < 0.9:
            continue
        text = rng.choice(phrases.BESIDE).format(where=phrases.WHERE[direction], name=name)
        head = f" {name} {cell_name(item)} {direction}"
        if target is None:
            return Question("beside", scene, text, f"{head} nothing", "nothing")
        return Question(
            "beside", scene, text, f"{head} {cell_name(target)} {look(target)}", look(target)
        )
    return None


def order(rng: Random, scene: Scene | None = None) -> Question | None:
    """Whether one object is further left (right, up, down) than another."""
    given = scene
    for _ in range(TRIES):
        scene = given or scatter(rng, some(rng, 2))
        options = _reference(rng, scene)
        if len({item for item, _ in options}) < 2:
            continue
        (first, first_name), (second, second_name) = rng.sample(options, 2)
        direction = rng.choice(tuple(DIRECTIONS))
        down, across = DIRECTIONS[direction]
        gap = (first.row - second.row) * down + (first.column - second.column) * across
        if gap == 0 or first == second:
            continue
        text = rng.choice(phrases.ORDER).format(
            first=first_name, second=second_name, where=phrases.WHERE[direction]
        )
        thinking = f" {first_name} {cell_name(first)} {second_name} {cell_name(second)}"
        return Question("order", scene, text, thinking, "yes" if gap > 0 else "no")
    return None


def chain(rng: Random, scene: Scene | None = None) -> Question | None:
    """Two steps from an object: what is below the object left of the star."""
    given = scene
    for _ in range(TRIES):
        scene = given or scatter(rng, some(rng, 5), free_share=0.15)
        options = []
        for item, name in _reference(rng, scene):
            for one in DIRECTIONS:
                middle = neighbour(scene, item, one)
                for two in DIRECTIONS:
                    if middle is None or two == OPPOSITE[one]:
                        continue
                    end = neighbour(scene, middle, two)
                    if end is not None:
                        options.append((item, name, one, middle, two, end))
        if not options:
            continue
        item, name, one, middle, two, end = rng.choice(options)
        text = rng.choice(phrases.CHAIN).format(
            second=phrases.WHERE[two], first=phrases.WHERE[one], name=name
        )
        path = f" {name} {cell_name(item)} {one} {cell_name(middle)} {two} {cell_name(end)}"
        return Question("chain", scene, text, f"{path} {look(end)}", look(end))
    return None

"""Questions about single objects and about the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vlmkit.experiment.shapes import phrases
from vlmkit.experiment.shapes.drawing import SHAPES, Scene
from vlmkit.experiment.shapes.question import (
    MAX_OBJECTS,
    Question,
    cell_name,
    look,
    named,
    others,
    some,
)
from vlmkit.experiment.shapes.scenes import COLOUR_NAMES, random_look, scatter

_HALVES = ("colour", "shape")  # of a look


def colour_of(rng: Random, scene: Scene | None = None) -> Question | None:
    return _half_of(rng, scene, "colour of", phrases.COLOUR_OF, asked=0)


def shape_of(rng: Random, scene: Scene | None = None) -> Question | None:
    return _half_of(rng, scene, "shape of", phrases.SHAPE_OF, asked=1)


def _half_of(
    rng: Random, scene: Scene | None, kind: str, texts: Sequence[str], *, asked: int
) -> Question | None:
    """Ask for one half of an object's look, (colour, shape), naming the other."""
    wanted, given = random_look(rng), 1 - asked
    if scene is None:
        absent = rng.random() < 0.12
        looks = [] if absent else [wanted]
        spare = rng.randint(int(absent), MAX_OBJECTS - 1)
        looks += others(rng, spare, lambda v: v[given] != wanted[given])
        scene = scatter(rng, looks)
    text = rng.choice(texts).format(**{_HALVES[given]: wanted[given]})
    found = [item for item in scene.items if (item.colour, item.name)[given] == wanted[given]]
    if not found:
        return Question(kind, scene, text, " none", "unknown")
    if len(found) > 1:
        return None
    answer = (found[0].colour, found[0].name)[asked]
    return Question(kind, scene, text, f" {cell_name(found[0])} {answer}", answer)


def _decoys(rng: Random, colour: str, shape: str) -> Scene:
    """A scene that has the object in half of the cases, and others like it in one way."""
    looks = [(colour, shape)] if rng.random() < 0.5 else []
    looks += [
        (colour, s) for s in rng.choices([s for s in SHAPES if s != shape], k=rng.randint(0, 2))
    ]
    looks += [
        (c, shape)
        for c in rng.choices([c for c in COLOUR_NAMES if c != colour], k=rng.randint(0, 2))
    ]
    spare = rng.randint(not looks, 4)
    return scatter(rng, looks + others(rng, spare, lambda v: v != (colour, shape)))


def exists(rng: Random, scene: Scene | None = None) -> Question | None:
    colour, shape = random_look(rng) if scene is None else named(rng, scene)
    scene = scene or _decoys(rng, colour, shape)
    reds = [i for i in scene.items if i.colour == colour]
    thinking = "".join(f" {cell_name(i)} {i.name}" for i in reds) or " none"
    text = rng.choice(phrases.EXISTS).format(look=f"{colour} {shape}")
    return Question(
        "exists",
        scene,
        text,
        thinking,
        "yes" if any(look(i) == f"{colour} {shape}" for i in reds) else "no",
    )


def describe(rng: Random, scene: Scene | None = None) -> Question | None:
    scene = scene or scatter(rng, some(rng, 1, 6))
    if len(scene.items) > 6:
        return None
    thinking = "".join(f" {cell_name(i)} {look(i)}" for i in scene.items)
    return Question(
        "describe", scene, rng.choice(phrases.DESCRIBE), thinking, ", ".join(map(look, scene.items))
    )


def unanswerable(rng: Random, scene: Scene | None = None) -> Question | None:
    scene = scene or scatter(rng, some(rng))
    item = rng.choice(scene.items)
    text = rng.choice(phrases.UNANSWERABLE).format(shape=item.name, colour=item.colour)
    return Question("unanswerable", scene, text, " not shown", "unknown")

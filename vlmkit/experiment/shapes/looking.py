"""Questions about single objects and about the whole image."""

from __future__ import annotations

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


def colour_of(rng: Random, scene: Scene | None = None) -> Question | None:
    colour, shape = random_look(rng)
    if scene is None:
        absent = rng.random() < 0.12
        looks = [] if absent else [(colour, shape)]
        looks += others(rng, rng.randint(int(absent), MAX_OBJECTS - 1), lambda v: v[1] != shape)
        scene = scatter(rng, looks)
    text = rng.choice(phrases.COLOUR_OF).format(shape=shape)
    found = [i for i in scene.items if i.name == shape]
    if not found:
        return Question("colour of", scene, text, " none", "unknown")
    if len(found) > 1:
        return None
    colour = found[0].colour
    return Question("colour of", scene, text, f" {cell_name(found[0])} {colour}", colour)


def shape_of(rng: Random, scene: Scene | None = None) -> Question | None:
    colour, shape = random_look(rng)
    if scene is None:
        absent = rng.random() < 0.12
        looks = [] if absent else [(colour, shape)]
        looks += others(rng, rng.randint(int(absent), MAX_OBJECTS - 1), lambda v: v[0] != colour)
        scene = scatter(rng, looks)
    text = rng.choice(phrases.SHAPE_OF).format(colour=colour)
    found = [i for i in scene.items if i.colour == colour]
    if not found:
        return Question("shape of", scene, text, " none", "unknown")
    if len(found) > 1:
        return None
    shape = found[0].name
    return Question("shape of", scene, text, f" {cell_name(found[0])} {shape}", shape)


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

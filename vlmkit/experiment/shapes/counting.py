"""Questions about numbers of objects."""

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
    plural,
    some,
    tally,
)
from vlmkit.experiment.shapes.scenes import COLOUR_NAMES, Look, random_look, scatter


def count_all(rng: Random, scene: Scene | None = None) -> Question | None:
    scene = scene or scatter(rng, some(rng))
    text = rng.choice(phrases.COUNT_ALL)
    return Question("count all", scene, text, tally(scene.items), str(len(scene.items)))


def count_colour(rng: Random, scene: Scene | None = None) -> Question | None:
    if scene is None:
        colour = rng.choice(COLOUR_NAMES)
        hits = rng.randint(0, 6)
        looks = [(colour, rng.choice(SHAPES)) for _ in range(hits)]
        looks += others(rng, rng.randint(hits == 0, MAX_OBJECTS - hits), lambda v: v[0] != colour)
        scene = scatter(rng, looks)
    else:
        colour, _ = named(rng, scene)
    text = rng.choice(phrases.COUNT_COLOUR).format(colour=colour)
    found = [i for i in scene.items if i.colour == colour]
    return Question("count colour", scene, text, tally(found), str(len(found)))


def count_shape(rng: Random, scene: Scene | None = None) -> Question | None:
    if scene is None:
        shape = rng.choice(SHAPES)
        hits = rng.randint(0, 6)
        looks = [(rng.choice(COLOUR_NAMES), shape) for _ in range(hits)]
        looks += others(rng, rng.randint(hits == 0, MAX_OBJECTS - hits), lambda v: v[1] != shape)
        scene = scatter(rng, looks)
    else:
        _, shape = named(rng, scene)
    text = rng.choice(phrases.COUNT_SHAPE).format(shapes=plural(shape))
    found = [i for i in scene.items if i.name == shape]
    return Question("count shape", scene, text, tally(found), str(len(found)))


def _two_conditions(rng: Random, colour: str, shape: str) -> Scene:
    """A scene where some objects have the colour, some the shape, some both, some neither."""
    looks = [(colour, shape)] * rng.randint(0, 3)
    looks += [
        (colour, s) for s in rng.choices([s for s in SHAPES if s != shape], k=rng.randint(0, 3))
    ]
    looks += [
        (c, shape)
        for c in rng.choices([c for c in COLOUR_NAMES if c != colour], k=rng.randint(0, 2))
    ]
    spare = rng.randint(not looks, MAX_OBJECTS - len(looks) - 1)
    return scatter(rng, looks + others(rng, spare, lambda v: v[0] != colour and v[1] != shape))


def count_both(rng: Random, scene: Scene | None = None) -> Question | None:
    """Two conditions joined by and, not, or."""
    colour, shape = random_look(rng) if scene is None else named(rng, scene)
    form = rng.choice(("and", "not", "or"))
    scene = scene or _two_conditions(rng, colour, shape)
    reds = [i for i in scene.items if i.colour == colour]
    text = rng.choice(phrases.COUNT_BOTH[form]).format(colour=colour, shapes=plural(shape))
    if form == "and":
        found = [i for i in reds if i.name == shape]
        return Question("count and", scene, text, tally(found), str(len(found)))
    if form == "not":
        found = [i for i in reds if i.name != shape]
        return Question("count not", scene, text, tally(found, lambda i: i.name), str(len(found)))
    found = [i for i in scene.items if i.colour == colour or i.name == shape]
    return Question("count or", scene, text, tally(found, look), str(len(found)))


def _uneven(rng: Random, axis: int, first: str, second: str) -> Scene:
    """A scene with up to 7 objects of either colour (axis 0) or shape (axis 1)."""
    low = rng.randint(0, 3)
    counts = (low, low) if rng.random() < 0.3 and low else (low, low + rng.randint(1, 4 - low // 2))
    counts = counts if rng.random() < 0.5 else (counts[1], counts[0])
    looks: list[Look] = []
    for value, count in zip((first, second), counts, strict=True):
        for _ in range(count):
            colour, shape = random_look(rng)
            looks.append((value, shape) if axis == 0 else (colour, value))
    spare = rng.randint(0, min(3, MAX_OBJECTS - len(looks)))
    return scatter(rng, looks + others(rng, spare, lambda v: v[axis] not in (first, second)))


def compare(rng: Random, scene: Scene | None = None) -> Question | None:
    """More of one colour (or shape) than of another, or the same number."""
    by_colour = rng.random() < 0.5
    axis = 0 if by_colour else 1
    first, second = rng.sample(COLOUR_NAMES if by_colour else SHAPES, 2)
    scene = scene or _uneven(rng, axis, first, second)
    names = (first, second) if by_colour else (plural(first), plural(second))
    found = [[i for i in scene.items if (i.colour, i.name)[axis] == v] for v in (first, second)]
    if not any(found):
        return None
    thinking = "".join(f" {n}{tally(f)}" for n, f in zip(names, found, strict=True))
    text = rng.choice(phrases.COMPARE_COLOUR if by_colour else phrases.COMPARE_SHAPE)
    gap = len(found[0]) - len(found[1])
    answer = "same" if gap == 0 else names[0] if gap > 0 else names[1]
    return Question(
        "compare", scene, text.format(first=names[0], second=names[1]), thinking, answer
    )


def same_colour(rng: Random, scene: Scene | None = None) -> Question | None:
    """How many objects have the colour of a named one, itself included."""
    colour, shape = random_look(rng) if scene is None else named(rng, scene)
    if scene is None:
        other_shapes = [s for s in SHAPES if s != shape]
        looks = [(colour, shape)] + [
            (colour, s) for s in rng.choices(other_shapes, k=rng.randint(0, 5))
        ]
        spare = rng.randint(0, MAX_OBJECTS - len(looks))
        looks += others(rng, spare, lambda v: v[0] != colour and v[1] != shape)
        scene = scatter(rng, looks)
    alike = [i for i in scene.items if i.name == shape]
    if len(alike) != 1:
        return None
    item, colour = alike[0], alike[0].colour
    found = [i for i in scene.items if i.colour == colour]
    text = rng.choice(phrases.SAME_COLOUR).format(shape=shape)
    thinking = f" {shape} {cell_name(item)} {colour}{tally(found)}"
    return Question("same colour", scene, text, thinking, str(len(found)))

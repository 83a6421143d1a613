"""Random placement of objects, as pure functions of a `random.Random`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vlmkit.experiment.shapes.drawing import (
    CELL,
    COLOURS,
    DARK,
    GRID,
    IMAGE_SIZE,
    LIGHT,
    NOISE_LENGTH,
    SHAPES,
    Item,
    Scene,
)

COLOUR_NAMES = tuple(COLOURS)
MAX_NOISE = 6
Look = tuple[str, str]


def random_look(rng: Random) -> Look:
    """A (colour, shape) pair."""
    return rng.choice(COLOUR_NAMES), rng.choice(SHAPES)


def _apart(item: Item, others: Sequence[Item]) -> bool:
    """Whether the square around `item` keeps a pixel of distance from every other one."""
    return all(max(abs(item.x - o.x), abs(item.y - o.y)) > (item.size + o.size) / 2 for o in others)


def _in_cell(rng: Random, cell: int, jitter: int, sizes: tuple[int, int]) -> tuple[int, int, int]:
    """Centre and size of an object in `cell`, moved at most `jitter` and kept inside the image."""
    size = rng.randint(*sizes)
    half = size // 2
    place = []
    for index in (cell % GRID, cell // GRID):
        centre = index * CELL + CELL // 2 + rng.randint(-jitter, jitter)
        low, high = max(half, index * CELL + 4), min(IMAGE_SIZE - half, index * CELL + CELL - 5)
        place.append(min(max(centre, low), high))
    return place[0], place[1], size


def place(rng: Random, looks: Sequence[Look], cells: Sequence[int], free: bool = False) -> Scene:
    """A scene with one object per cell, drawn in reading order.

    Args:
        looks: (colour, shape or digit) of each object.
        cells: one cell index in 0..15 per object, all different.
        free: place objects anywhere in their cell with widely varying sizes (up to 40 pixels when
            there are at most three); otherwise on the grid with little jitter.
    """
    if free:
        jitter, sizes = 8, (16, 40) if len(looks) <= 3 else (16, 26)
    else:
        jitter, sizes = 3, (17, 24)
    items: list[Item] = []
    for cell, (colour, name) in sorted(zip(cells, looks, strict=True)):
        tilt = rng.randint(-3, 3) * 4
        for attempt in range(12):
            bounds = sizes if attempt < 6 else (16, 18)
            item = Item(
                name, colour, *_in_cell(rng, cell, jitter if attempt < 9 else 0, bounds), tilt
            )
            if _apart(item, items):
                break
        items.append(item)
    backgrounds = LIGHT if rng.random() < 0.7 else DARK
    noise = rng.randint(0, MAX_NOISE)
    return Scene(tuple(items), rng.choice(backgrounds), noise, rng.randrange(NOISE_LENGTH))


def scatter(rng: Random, looks: Sequence[Look], free_share: float = 0.35) -> Scene:
    """Objects in random cells; a share of the scenes is placed freely."""
    cells = rng.sample(range(GRID * GRID), len(looks))
    return place(rng, looks, cells, free=rng.random() < free_share)


def number_row(rng: Random, digits: str) -> Scene:
    """A number of one to four digits in one line and one colour."""
    colour = rng.choice(COLOUR_NAMES)
    start = rng.randint(0, GRID - len(digits))
    row = rng.randrange(GRID)
    cells = [row * GRID + start + k for k in range(len(digits))]
    return place(rng, [(colour, d) for d in digits], cells)

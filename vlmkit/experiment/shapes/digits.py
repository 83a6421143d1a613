"""Questions about digits."""

from __future__ import annotations

from random import Random

from vlmkit.experiment.shapes import phrases
from vlmkit.experiment.shapes.drawing import GRID, Scene
from vlmkit.experiment.shapes.question import (
    Question,
    cell_name,
)
from vlmkit.experiment.shapes.scenes import COLOUR_NAMES, number_row, scatter

MAX_SUM = 30


def read_number(rng: Random, scene: Scene | None = None) -> Question | None:
    if scene is None:
        length = rng.randint(1, 4)
        digits = str(rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length))
        scene = number_row(rng, digits)
    digits = "".join(i.name for i in scene.items)
    cells = [i.cell for i in scene.items]
    if (
        cells != list(range(cells[0], cells[0] + len(cells)))
        or len({i.row for i in scene.items}) > 1
    ):
        return None
    return Question(
        "read", scene, rng.choice(phrases.READ), "".join(f" {d}" for d in digits), digits
    )


def _digits(rng: Random) -> Scene:
    """Two to five digits, scattered or in a line, whose sum is at most `MAX_SUM`."""
    while True:
        digits = [str(rng.randrange(10)) for _ in range(rng.randint(2, 5))]
        if sum(map(int, digits)) <= MAX_SUM:
            break
    if len(digits) <= GRID and rng.random() < 0.3:
        return number_row(rng, "".join(digits))
    return scatter(rng, [(rng.choice(COLOUR_NAMES), d) for d in digits], free_share=0.2)


def add_digits(rng: Random, scene: Scene | None = None) -> Question | None:
    """The sum of all digits shown, with a running total."""
    scene = scene or _digits(rng)
    total, thinking = 0, ""
    for item in scene.items:
        total += int(item.name)
        thinking += f" {cell_name(item)} {item.name} {total}"
    if len(scene.items) < 2 or total > MAX_SUM:
        return None
    return Question("sum", scene, rng.choice(phrases.SUM), thinking, str(total))

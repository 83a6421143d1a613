"""Albums: pictures, notes, and a question that one of them answers.

A picture of 84 × 84 pixels shows one coloured shape or one coloured digit, and no two digits have
the same colour. A note keeps one digit under a name. A question asks for the digit of one colour or
of one name, so that exactly one place of a long prompt must be found and read.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.experiment.album.names import NAMES
from vlmkit.experiment.shapes.drawing import CELL, GRID, SHAPES, Scene, render
from vlmkit.experiment.shapes.scenes import COLOUR_NAMES, place

SIDE = 3
PIXELS = SIDE * CELL
MOST_PICTURES = 36
DIGITS = tuple("0123456789")
STREAM = 1 << 40


class Picture(NamedTuple):
    """What one image shows: a shape or a digit."""

    colour: str
    name: str
    scene: Scene

    @property
    def is_digit(self) -> bool:
        """Whether a question can be about it."""
        return self.name in DIGITS


class Note(NamedTuple):
    """One line of text."""

    name: str
    digit: str


class Album(NamedTuple):
    """Everything a prompt is about."""

    pictures: tuple[Picture, ...]
    notes: tuple[Note, ...]

    @property
    def digits(self) -> tuple[int, ...]:
        """Which pictures show a digit."""
        return tuple(i for i, picture in enumerate(self.pictures) if picture.is_digit)

    @property
    def text(self) -> str:
        """The notes, one a line."""
        return "".join(f"{note.name}: {note.digit}\n" for note in self.notes)


class Needle(NamedTuple):
    """A question about one picture or note; `depth` is its place among its like, 0..1."""

    kind: str  # "picture" | "note"
    question: str
    answer: str
    depth: float


def draw(picture: Picture) -> NDArray[np.uint8]:
    """Draw a picture.

    Returns:
        uint8[84, 84, 3] in RGB.
    """
    return render(picture.scene)[:PIXELS, :PIXELS]


def _picture(rng: Random, colour: str, name: str) -> Picture:
    cell = rng.randrange(SIDE * SIDE)
    scene = place(rng, [(colour, name)], [cell + cell // SIDE * (GRID - SIDE)])
    return Picture(colour, name, scene)


def album(rng: Random, num_pictures: int, num_notes: int) -> Album:
    """Draw an album.

    Args:
        rng: read on.
        num_pictures: 0..36; half of them, but no more than six, show digits.
        num_notes: 0..160.
    """
    colours = rng.sample(COLOUR_NAMES, min((num_pictures + 1) // 2, len(COLOUR_NAMES)))
    shown = [(colour, rng.choice(DIGITS)) for colour in colours]
    shown += [
        (rng.choice(COLOUR_NAMES), rng.choice(SHAPES)) for _ in range(num_pictures - len(shown))
    ]
    rng.shuffle(shown)
    pictures = tuple(_picture(rng, colour, name) for colour, name in shown)
    names = rng.sample(NAMES, num_notes)
    return Album(pictures, tuple(Note(name, rng.choice(DIGITS)) for name in names))


def about_picture(book: Album, index: int) -> Needle:
    """Ask for the digit of a picture that shows one."""
    picture = book.pictures[index]
    return Needle(
        "picture",
        f"What number is {picture.colour}?",
        f"{picture.colour}: {picture.name}",
        index / max(1, len(book.pictures) - 1),
    )


def about_note(book: Album, index: int) -> Needle:
    """Ask for the digit of a note."""
    note = book.notes[index]
    return Needle(
        "note",
        f"What number is with {note.name}?",
        f"{note.name}: {note.digit}",
        index / max(1, len(book.notes) - 1),
    )

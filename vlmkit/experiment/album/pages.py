"""Albums: pictures, notes, and a question that one of them answers.

A picture of 84 × 84 pixels shows one coloured shape and one digit, and no two pictures show the
same shape in the same colour. A note keeps one digit under a name. A question asks for the digit
of one picture or of one note, so that exactly one place of a long prompt must be found and read.
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
LOOKS = tuple((colour, shape) for colour in COLOUR_NAMES for shape in SHAPES)
DIGITS = tuple("0123456789")
STREAM = 1 << 40


class Picture(NamedTuple):
    """What one image shows."""

    colour: str
    shape: str
    digit: str
    scene: Scene


class Note(NamedTuple):
    """One line of text."""

    name: str
    digit: str


class Album(NamedTuple):
    """Everything a prompt is about."""

    pictures: tuple[Picture, ...]
    notes: tuple[Note, ...]

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


def _picture(rng: Random, colour: str, shape: str) -> Picture:
    digit = rng.choice(DIGITS)
    cells = [cell + cell // SIDE * (GRID - SIDE) for cell in rng.sample(range(SIDE * SIDE), 2)]
    scene = place(rng, [(colour, shape), (rng.choice(COLOUR_NAMES), digit)], cells)
    return Picture(colour, shape, digit, scene)


def album(rng: Random, num_pictures: int, num_notes: int) -> Album:
    """Draw an album.

    Args:
        rng: read on.
        num_pictures: 0..36.
        num_notes: 0..160.
    """
    looks = rng.sample(LOOKS, num_pictures)
    pictures = tuple(_picture(rng, colour, shape) for colour, shape in looks)
    names = rng.sample(NAMES, num_notes)
    return Album(pictures, tuple(Note(name, rng.choice(DIGITS)) for name in names))


def about_picture(book: Album, index: int) -> Needle:
    """Ask for the digit of a picture."""
    picture = book.pictures[index]
    look = f"{picture.colour} {picture.shape}"
    return Needle(
        "picture",
        f"What number is with the {look}?",
        f"{look}: {picture.digit}",
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

"""Any number of albums, each of many pictures and notes, with a question about one of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from vlmkit.declare.configbase import Int
from vlmkit.experiment.album.names import NAMES
from vlmkit.experiment.album.pages import (
    MOST_PICTURES,
    STREAM,
    Album,
    Needle,
    about_note,
    about_picture,
    album,
    draw,
)
from vlmkit.experiment.data.base import DataConfig, Rows
from vlmkit.experiment.data.images import encode_png
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shapes import HELD_OUT_SEED

_KEPT = 64  # albums; one is read for its images, for its prompt and for its score


class AlbumConfig(DataConfig):
    """A needle in an album: the digit of one colour or one name, from a stream held out."""

    kind: Literal["album"] = "album"
    num_samples: Int = Field(default=64, ge=1, le=1_000_000, description="how many albums")
    num_pictures: Int = Field(
        default=36, ge=0, le=MOST_PICTURES, description="pictures of 84 x 84 pixels in each"
    )
    num_notes: Int = Field(
        default=160, ge=0, le=len(NAMES), description="lines of text, a name and a digit each"
    )
    ask: Literal["picture", "note", "both"] = Field(
        default="both", description="what the question is about; both: by turns"
    )

    @model_validator(mode="after")
    def _has_answers(self) -> AlbumConfig:
        empty = {"picture": self.num_pictures, "note": self.num_notes}
        asked = list(empty) if self.ask == "both" else [self.ask]
        for kind in asked:
            if empty[kind] == 0:
                raise ValueError(f"ask: {self.ask} needs num_{kind}s of 1 or more")
        return self

    def asks_picture(self, index: int) -> bool:
        """Whether a sample's question is about a picture."""
        return self.ask == "picture" or (self.ask == "both" and index % 2 == 0)


def albums(config: AlbumConfig, base: Path) -> Rows:
    """Choose the albums; their pictures are drawn when they are asked for.

    Example:
        >>> rows = albums(AlbumConfig(num_samples=2, num_pictures=3, num_notes=2), Path())
        >>> sample = rows.read(1)
        >>> print(sample.question)
        Sami: 7
        Ida: 4
        What number is with Sami?
        >>> sample.answers, len(sample.images)
        (('Sami: 7',), 3)
    """
    ids = [f"album-{index}" for index in range(config.num_samples)]

    @lru_cache(maxsize=_KEPT)
    def made(row: int) -> tuple[Album, Needle]:
        return sample_at(config, row)

    def read_text(row: int) -> Sample:
        book, needle = made(row)
        return Sample(
            id=ids[row],
            question=book.text + needle.question,
            answers=(needle.answer,),
            fields={"category": needle.kind, "depth": round(needle.depth, 3)},
            where=ids[row],
        )

    def read(row: int) -> Sample:
        pictures = made(row)[0].pictures
        return read_text(row)._replace(
            images=tuple(encode_png(draw(picture)) for picture in pictures)
        )

    def content(row: int) -> tuple[bytes, ...]:
        return tuple(repr(picture.scene).encode() for picture in made(row)[0].pictures)

    return Rows(ids, read, read_text, lambda row: ids[row], content, source="dataset")


def sample_at(config: AlbumConfig, index: int) -> tuple[Album, Needle]:
    """The album number ``index`` that no model was trained on, and what is asked about it."""
    rng = Random(HELD_OUT_SEED * STREAM + index)
    book = album(rng, config.num_pictures, config.num_notes)
    if config.asks_picture(index):
        return book, about_picture(book, rng.choice(book.digits))
    return book, about_note(book, rng.randrange(len(book.notes)))

"""Any number of drawn images with questions that the embedded model was not trained on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vlmkit.declare.configbase import Int
from vlmkit.errors import nearest
from vlmkit.experiment.data.base import DataConfig, Rows
from vlmkit.experiment.data.images import encode_png
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shapes import HELD_OUT_SEED, question_at
from vlmkit.experiment.shapes.question import Question

FIRST_INDEX = 20_000_000  # beyond the questions that the model was looked at and measured with
_KEPT = 256  # questions; one is read for its image, for its prompt and for its score
KINDS = (
    *("count all", "count colour", "count shape", "count and", "count not", "count or"),
    *("compare", "same colour", "colour of", "shape of", "exists", "beside", "chain", "order"),
    *("read", "sum", "describe", "unanswerable"),
)


def _are_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    for kind in kinds:
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise ValueError(f"unknown kind {kind!r}{nearest(kind, KINDS)} (one of {known})")
    return kinds


class ShapesConfig(DataConfig):
    """Questions about coloured shapes and digits, drawn from a stream that is never trained on."""

    kind: Literal["shapes"] = "shapes"
    num_samples: Int = Field(default=200, ge=1, le=1_000_000, description="how many questions")
    kinds: Annotated[tuple[str, ...], AfterValidator(_are_kinds)] = Field(
        default=(), description="only these kinds of questions, as 'chain'; empty: all"
    )


def shapes(config: ShapesConfig, base: Path) -> Rows:
    """Choose the questions; images are drawn when they are asked for.

    Example:
        >>> rows = shapes(ShapesConfig(num_samples=1, kinds=("count all",)), Path())
        >>> sample = rows.read(0)
        >>> sample.question, sample.answers, sample.images[0][:4]
        ('What is the number of objects?', ('7',), b'\\x89PNG')
    """
    indices = _indices(config)
    ids = [f"shapes-{index - FIRST_INDEX}" for index in indices]

    @lru_cache(maxsize=_KEPT)
    def question(row: int) -> Question:
        return question_at(HELD_OUT_SEED, indices[row])

    def read_text(row: int) -> Sample:
        drawn = question(row)
        names = sorted({item.name for item in drawn.scene.items})
        return Sample(
            id=ids[row],
            question=drawn.question,
            answers=(drawn.answer,),
            fields={"category": drawn.kind, "objects": names},
            where=ids[row],
        )

    def read(row: int) -> Sample:
        return read_text(row)._replace(images=(draw_png(question(row)),))

    def content(row: int) -> tuple[bytes, ...]:
        return (repr(question(row).scene).encode(),)

    return Rows(ids, read, read_text, lambda row: ids[row], content, source="dataset")


def draw_png(question: Question) -> bytes:
    """The image of a question as a PNG file."""
    from vlmkit.experiment.shapes.drawing import render

    return encode_png(render(question.scene))


def _indices(config: ShapesConfig) -> range | list[int]:
    if not config.kinds:
        return range(FIRST_INDEX, FIRST_INDEX + config.num_samples)
    found: list[int] = []
    index = FIRST_INDEX
    while len(found) < config.num_samples:
        if question_at(HELD_OUT_SEED, index).kind in config.kinds:
            found.append(index)
        index += 1
    return found

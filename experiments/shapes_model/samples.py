"""The sample images shipped with the model: held-out questions of several kinds, as PNG files."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from experiments.shapes_model.data import HELD_OUT_SEED, question_at
from vlmkit.experiment.shapes.drawing import render
from vlmkit.experiment.shapes.question import Question

FIRST_INDEX = 10_000_000
PER_KIND = 3
KINDS = (
    "describe",
    "count all",
    "count not",
    "count or",
    "compare",
    "same colour",
    "beside",
    "chain",
    "order",
    "colour of",
    "read",
    "sum",
    "unanswerable",
)


def chosen() -> list[Question]:
    """The first held-out questions of each kind with something to think about, kind by kind."""
    found: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    index = FIRST_INDEX
    while any(len(questions) < PER_KIND for questions in found.values()):
        question = question_at(HELD_OUT_SEED, index)
        index += 1
        wanted = question.kind in KINDS and len(found[question.kind]) < PER_KIND
        tidy = question.question[0].isupper() and question.question[-1] in "?."
        rich = len(question.scene.items) >= (4 if question.kind not in ("read", "describe") else 3)
        if wanted and tidy and rich and question.answer not in ("0", "nothing"):
            found[question.kind].append(question)
    return [found[kind][place] for place in range(PER_KIND) for kind in KINDS]


def write_samples(folder: Path) -> None:
    """Write samples/NAME.png and samples/samples.json into `folder`."""
    (folder / "samples").mkdir()
    rows = []
    for place, question in enumerate(chosen()):
        number = "" if place < len(KINDS) else f"_{place // len(KINDS) + 1}"
        name = question.kind.replace(" ", "_") + number + ".png"
        Image.fromarray(render(question.scene)).save(folder / "samples" / name, optimize=True)
        rows.append(
            {
                "image": name,
                "kind": question.kind,
                "question": question.question,
                "answer": question.answer,
            }
        )
    (folder / "samples" / "samples.json").write_text(json.dumps(rows, indent=2) + "\n")

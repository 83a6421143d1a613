"""Held-out accuracy of the album model by size of the album, kind and depth, through vlmkit.

    python -m experiments.album_model.evaluate --model FOLDER --samples 200

Answers are generated greedily from the images and compared letter by letter.
"""

from __future__ import annotations

import argparse
import io
from collections import defaultdict
from pathlib import Path

from PIL import Image

from experiments.album_model.data import LEVELS
from vlmkit import apply_chat_template, batch_generate, load
from vlmkit.experiment.data.album import AlbumConfig, albums

MAX_TOKENS = 8


def accuracy(
    folder: str, pictures: int, notes: int, samples: int, batch_size: int, ask: str
) -> dict[str, tuple[int, int]]:
    """Right answers and questions, by kind and by quarter of the depth, and of all."""
    model, processor = load(folder)
    config = AlbumConfig(
        num_samples=samples, num_pictures=pictures, num_notes=notes, ask=ask if pictures else "note"
    )
    rows = albums(config, Path())
    read = [rows.read(index) for index in range(samples)]
    said = batch_generate(
        model,
        processor,
        images=[[Image.open(io.BytesIO(i)) for i in sample.images] for sample in read],
        prompts=[
            apply_chat_template(processor, model.config, s.question, num_images=len(s.images))
            for s in read
        ],
        max_tokens=MAX_TOKENS,
        batch_size=batch_size,
        skip_special_tokens=True,
    ).texts
    found: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for sample, text in zip(read, said, strict=True):
        quarter = min(int(4 * sample.fields["depth"]), 3) + 1
        kind = sample.fields["category"]
        for key in (kind, f"{kind}, quarter {quarter}", "all"):
            right, asked = found[key]
            found[key] = right + (text.strip() == sample.answers[0]), asked + 1
    return dict(sorted(found.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a name or folder that `load` accepts")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--levels", type=int, nargs="+", default=list(range(len(LEVELS))))
    parser.add_argument("--ask", choices=("picture", "note", "both"), default="note")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args(argv)
    for level in options.levels:
        scores = accuracy(
            options.model, *LEVELS[level], options.samples, options.batch_size, options.ask
        )
        print("{} pictures, {} notes:".format(*LEVELS[level]))
        for key, (right, asked) in scores.items():
            print(f"  {key}: {right / asked:.3f} of {asked}", flush=True)


if __name__ == "__main__":
    main()

"""Write a checkpoint folder in the hub's Qwen2-VL layout.

python -m experiments.album_model.export --checkpoint DIR/checkpoint.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.album_model.data import tokenizer
from experiments.album_model.model import AlbumModel
from experiments.shapes_model.export import ASSETS, export


def trained_model(checkpoint: Path) -> AlbumModel:
    """The model of a training checkpoint."""
    model = AlbumModel()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run"
    )
    parser.add_argument("--to", type=Path, default=ASSETS.parent / "album", help="folder to write")
    options = parser.parse_args(argv)
    model = trained_model(options.checkpoint)
    export(model, options.to, tokenizer(), model.size, samples=False)


if __name__ == "__main__":
    main()

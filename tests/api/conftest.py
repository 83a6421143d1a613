"""The embedded model, loaded once, with pictures and prompts for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlmkit
from vlmkit import load
from vlmkit.prompt_utils import apply_chat_template

ASSETS = Path(vlmkit.__file__).parent / "assets" / "shapes"


@pytest.fixture(scope="session")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


@pytest.fixture(scope="session")
def samples() -> list[dict[str, Any]]:
    return json.loads((ASSETS / "samples" / "samples.json").read_text())


@pytest.fixture(scope="session")
def sample_images(samples: list[dict[str, Any]]) -> list[Path]:
    return [ASSETS / "samples" / Path(sample["image"]).name for sample in samples]


@pytest.fixture(scope="session")
def ask(shapes: tuple[Any, Any]) -> Callable[..., str]:
    model, processor = shapes

    def prompt(question: str, *, num_images: int = 1, thinking: bool = False) -> str:
        return apply_chat_template(
            processor, model.config, question, num_images=num_images, enable_thinking=thinking
        )

    return prompt


@pytest.fixture(scope="session")
def picture(sample_images: list[Path]) -> Callable[..., Image.Image]:
    """A real picture, stretched to a size of one's own."""

    def make(place: int = 0, size: tuple[int, int] = (112, 112)) -> Image.Image:
        return Image.open(sample_images[place]).convert("RGB").resize(size)

    return make

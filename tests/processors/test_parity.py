"""Pixels and ids of the embedded checkpoint: as transformers makes them today, and as kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.processors.test_qwen2_vl import MODES, noise
from tests.processors.tiny import SHAPES
from vlmkit.declare.section import Section
from vlmkit.processors import load_processor
from vlmkit.processors.qwen2_vl import process_images, read_qwen2_vl_images

GOLDEN = Path(__file__).parents[1] / "goldens" / "processors.json"
SIZES = ((28, 28), (40, 90), (112, 112), (300, 17), (333, 444))  # height, width
TEXTS = (
    "Count the objects.",
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>3 red circles<|im_end|>\n",
    "<think>2 + 2</think> 4",
    "é e\u0301 漢字 🙂 \u200b\t\r\n  x",
)


def pattern(mode: str, height: int, width: int) -> Image.Image:
    """A picture that depends on no random number generator."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([x, y, x * y], -1)).convert(mode)


def digest(patches: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(patches).astype("<f4").tobytes()).hexdigest()


def made_by(backend: Any) -> dict[str, Any]:
    processor = load_processor(SHAPES, backend=backend)
    pixels = {
        f"{mode} {height}x{width}": digest(
            processor.process_images([pattern(mode, height, width)])[0]
        )
        for mode in ("RGB", "L", "CMYK")
        for height, width in SIZES
    }
    return {"pixels": pixels, "ids": {text: processor.encode(text) for text in TEXTS}}


def test_pixels_and_ids_are_those_on_file(update_golden: bool) -> None:
    ours = made_by("native")
    if update_golden:  # what is kept comes from transformers, not from the code under test
        text = json.dumps(made_by("transformers"), indent=1)
        GOLDEN.write_text(text + "\n", encoding="utf-8")
    assert ours == json.loads(GOLDEN.read_text(encoding="utf-8")), "run: pytest --update-golden"


def test_transformers_still_makes_those_on_file() -> None:
    assert made_by("transformers") == json.loads(GOLDEN.read_text(encoding="utf-8"))


@st.composite
def settings_of_a_checkpoint(draw: st.DrawFn) -> dict[str, Any]:
    patch, merge = draw(st.integers(2, 18)), draw(st.integers(1, 3))
    least = draw(st.integers(1, 40_000))
    most = draw(st.integers(least, 60_000))
    limits: dict[str, Any] = {"min_pixels": least, "max_pixels": most}
    if draw(st.booleans()):
        limits = {"size": {"shortest_edge": least, "longest_edge": most}}
    return {
        **limits,
        "patch_size": patch,
        "merge_size": merge,
        "temporal_patch_size": draw(st.integers(1, 3)),
        "resample": draw(st.sampled_from([0, 1, 2, 3, 4, 5])),
        "do_rescale": draw(st.booleans()),
        "do_normalize": draw(st.booleans()),
    }


@settings(max_examples=40)
@given(
    values=settings_of_a_checkpoint(),
    height=st.integers(1, 260),
    width=st.integers(1, 260),
    mode=st.sampled_from(MODES),
)
def test_any_settings_equal_transformers(
    values: dict[str, Any], height: int, width: int, mode: str
) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    height, width = max(height, width // 150), max(width, height // 150)
    image = noise(mode, height, width, 3)
    theirs = Qwen2VLImageProcessorPil(**values)(images=[image], return_tensors="np")
    patches, grids = process_images([image], read_qwen2_vl_images(Section(values)))
    np.testing.assert_array_equal(patches, theirs["pixel_values"])
    np.testing.assert_array_equal(np.array(grids), theirs["image_grid_thw"])

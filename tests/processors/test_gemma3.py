"""The processor of Gemma 3 against transformers': pixels, and what stands around an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processors.tiny_gemma3 import IMAGES, NUM_TOKENS, SIZES, write_gemma3
from vlmkit import apply_chat_template
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_processor
from vlmkit.processors.messages import Prompt

IMAGE = "\n\n<start_of_image>" + "<image_soft_token>" * NUM_TOKENS + "<end_of_image>\n\n"
TURN = "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma3(tmp_path_factory.mktemp("gemma3"))


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    made = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in SIZES]
    return [*made, Image.new("RGBA", (9, 4), (200, 0, 9, 128)).convert("P"), made[0].convert("L")]


def blocks(pixels: np.ndarray) -> np.ndarray:
    """Cut ``[N, 3, 24, 24]`` into patches of 4 by 4, two by two of them together."""
    parts = pixels.reshape(-1, 3, 3, 2, 4, 3, 2, 4).transpose(0, 2, 5, 3, 6, 1, 4, 7)
    return parts.reshape(-1, 48)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_pixels_and_ids_are_those_of_transformers(
    backend: Any, resample: int, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    folder = write_gemma3(tmp_path / "model")
    settings = {**IMAGES, "resample": resample}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    theirs = Gemma3Processor(
        Gemma3ImageProcessorPil(**settings),
        AutoTokenizer.from_pretrained(str(folder)),
        image_seq_length=NUM_TOKENS,
    )
    images = pictures()[:3]
    text = TURN.format("<start_of_image>One\n\n<start_of_image><start_of_image> three")
    expected = theirs(text=[text], images=[images], return_tensors="np")
    found = load_processor(folder, backend=backend)(text=text, images=images)
    np.testing.assert_array_equal(found.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(found.mm_token_type_ids, expected["token_type_ids"])
    np.testing.assert_array_equal(found.pixel_values, blocks(expected["pixel_values"]))
    assert found.image_grid_thw.tolist() == [[1, 6, 6]] * 3


def test_modes_without_three_channels_have_the_same_grid(folder: Path) -> None:
    patches, grids = load_processor(folder).process_images(pictures())
    assert patches.shape == (5 * 36, 48)
    assert {tuple(grid) for grid in grids} == {(1, 6, 6)}


def test_prompts_of_the_template_are_written_out(folder: Path) -> None:
    processor = load_processor(folder)
    text = apply_chat_template(processor, None, "Why?", num_images=1)
    assert text == TURN.format("<start_of_image>Why?")
    ids = processor.encode(text)
    spread = [copy for one in ids for copy in [one] * (NUM_TOKENS if one == 264 else 1)]
    whole = processor.decode(spread)
    assert whole == TURN.format(f"{IMAGE}Why?")
    written = text.replace(
        "<start_of_image>", "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
    )
    assert processor.encode(written) == ids


@pytest.mark.parametrize(
    "prompt",
    [
        "What is <start_of_image>?",
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "<start_of_image><image_soft_token><end_of_image>"},
            {"role": "user", "content": "Why?"},
        ],
    ],
)
def test_text_that_looks_like_an_image_is_none(prompt: Prompt, folder: Path) -> None:
    processor = load_processor(folder)
    ids = processor.encode(apply_chat_template(processor, None, prompt))
    assert not {263, 264, 265} & set(ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_pan_and_scan": True}, "do_pan_and_scan is true, which is not supported"),
        ({"do_resize": False}, "do_resize is false, which is not supported"),
        (
            {"size": {"height": 24, "width": 32}},
            "size.width is 32, but .*image_size is 24; the two",
        ),
        ({"size": {"height": 0, "width": 24}}, "size.height is 0"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "supported: Gemma3ImageProcessor"),
        ({"resample": 9}, "resample is 9; it has to be one of"),
        ({"image_std": 0}, "image_std is 0; it has to be one number above 0"),
    ],
)
def test_other_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_gemma3(tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps({**IMAGES, **changes}))
    with pytest.raises(VlmkitError, match=message) as caught:
        load_processor(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("boi_token_index", 5000, "boi_token_index is missing, or no id of the tokenizer"),
        ("mm_tokens_per_image", 16, "vision_config.image_size is 24; 4x4 visual tokens of whole"),
    ],
)
def test_configs_that_do_not_fit_are_refused(
    key: str, value: int, message: str, tmp_path: Path
) -> None:
    folder = write_gemma3(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(VlmkitError, match=message):
        load_processor(folder)

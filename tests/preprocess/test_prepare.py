from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.media import patches_of
from tests.processors.tiny import SHAPES, change_json, copy_shapes, write_text_only
from vlmkit.contracts.inputs import ImageGrid
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, prepare
from vlmkit.processors import Processor, load_processor

CONFIG = PreprocessConfig()
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def shapes() -> Processor:
    return load_processor(SHAPES)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder = copy_shapes(tmp_path_factory.mktemp("dynamic") / "c")
    change_json(
        folder / "preprocessor_config.json",
        size={"shortest_edge": 784, "longest_edge": 20_000},
        min_pixels=None,
        max_pixels=None,
    )
    return load_processor(folder)


sides = st.integers(20, 200)


@given(sizes=st.lists(st.tuples(sides, sides), max_size=3), words=st.integers(0, 3))
def test_each_placeholder_becomes_its_visual_tokens(
    dynamic: Processor, sizes: list[tuple[int, int]], words: int
) -> None:
    """The expansion equals that of the text with the placeholder repeated."""
    images = [Image.new("RGB", (width, height)) for height, width in sizes]
    text = "a red circle" * words + "?"
    inputs = prepare(dynamic, text.join([PLACE] * len(images)) + text, images, config=CONFIG)
    grids = [ImageGrid(*medium.shape) for medium in inputs.media]
    counts = [grid.time * grid.height * grid.width // 4 for grid in grids]
    long = [PLACE.replace("<|image_pad|>", "<|image_pad|>" * count) for count in counts]
    assert inputs.token_ids.dtype == np.int32
    assert inputs.token_ids.tolist() == dynamic.encode(text.join(long) + text)
    if images:
        assert patches_of(inputs).shape == (4 * sum(counts), 1176)
        np.testing.assert_array_equal(patches_of(inputs), dynamic.process_images(images)[0])
        ends = [medium.span[1] for medium in inputs.media]
        assert [medium.span[1] - medium.span[0] for medium in inputs.media] == counts
        assert all(
            (inputs.token_ids[e - n : e] == dynamic.image_token_id).all()
            for e, n in zip(ends, counts, strict=True)
        )
    else:
        assert inputs.media == ()


def test_token_ids_as_a_prompt(shapes: Processor) -> None:
    image = Image.new("RGB", (50, 50))
    text = prepare(shapes, PLACE + "?", [image], config=CONFIG)
    ids = prepare(shapes, shapes.encode(PLACE + "?"), [image], config=CONFIG)
    assert text.token_ids.tolist() == ids.token_ids.tolist()
    assert text.token_ids.tolist().count(shapes.image_token_id) == 16


def test_resize_shape_is_height_width(dynamic: Processor) -> None:
    config = PreprocessConfig(resize_shape=(56, 112))
    inputs = prepare(dynamic, PLACE, [Image.new("RGB", (30, 99))], config=config)
    assert [medium.shape for medium in inputs.media] == [(1, 4, 8)]


@pytest.mark.parametrize(
    ("prompt", "num_images", "more", "message"),
    [
        ("hi", 1, {}, r"0 image placeholders \(<\|image_pad\|>\), but there is 1 image; .*num_im"),
        (PLACE, 0, {}, r"1 image placeholder \(.*\), but there are 0 images; .*num_images=0\)"),
        (PLACE * 3, 2, {}, "3 image placeholders .* are 2 images"),
        ("", 0, {}, "it has no tokens"),
        ([], 0, {}, "it has no tokens"),
        ([5, 640], 0, {}, "token id 640 at position 1 has no embedding; ids go from 0 to 639"),
        ([-1], 0, {}, "token id -1 at position 0"),
        ("a b c", 0, {"context_length": 2}, "tokens, but the model's context is 2; shorten"),
        (PLACE, 1, {"context_length": 17}, "18 tokens, 16 of them for 1 image, but .* is 17; .*or"),
        ("hi", 0, {"audio": ["a.wav"]}, "the qwen2_vl family takes no audio"),
        (
            "<|video_pad|>",
            0,
            {},
            r"1 video placeholder \(<\|video_pad\|>\), but there are 0 videos",
        ),
    ],
)
def test_refused(
    shapes: Processor, prompt: Any, num_images: int, more: dict[str, Any], message: str
) -> None:
    images = [Image.new("RGB", (50, 50))] * num_images
    with pytest.raises(VlmkitError, match=message) as caught:
        prepare(shapes, prompt, images, config=CONFIG, **more)
    assert "\n" not in str(caught.value)


def test_the_context_is_inclusive(shapes: Processor) -> None:
    image = Image.new("RGB", (50, 50))
    inputs = prepare(shapes, PLACE, [image], config=CONFIG, context_length=18)
    assert len(inputs.token_ids) == 18


def test_an_image_beyond_the_aspect_ratio_is_named(shapes: Processor) -> None:
    with pytest.raises(VlmkitError, match=r"PIL image \(L, height 1, width 500\): .* limit is 200"):
        prepare(shapes, PLACE, [Image.new("L", (500, 1))], config=CONFIG)


def test_text_only_models(tmp_path: Path) -> None:
    processor = load_processor(write_text_only(tmp_path))
    assert prepare(processor, "hello", config=CONFIG).token_ids.shape == (5,)
    with pytest.raises(VlmkitError, match="the llama family takes no images"):
        prepare(processor, "hello", [Image.new("L", (5, 5))], config=CONFIG)

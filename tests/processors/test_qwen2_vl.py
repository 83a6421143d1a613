"""The native image processor equals transformers' ``Qwen2VLImageProcessorPil`` bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.effort import scaled
from tests.processors.tiny import SHAPES
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_processor
from vlmkit.processors.qwen2_vl import (
    Qwen2VLImages,
    process_images,
    read_qwen2_vl_images,
    smart_resize,
)

CONFIGS: dict[str, dict[str, Any]] = {
    "old": {"min_pixels": 3136, "max_pixels": 50_176},
    "new": {"size": {"shortest_edge": 784, "longest_edge": 30_000}, "rescale_factor": 1 / 127.5},
    "other": {
        "min_pixels": 256,
        "max_pixels": 16_384,
        "patch_size": 16,
        "temporal_patch_size": 1,
        "merge_size": 1,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.5, 0.75],
        "resample": 2,
    },
    "raw": {"size": {"shortest_edge": 784, "longest_edge": 784}, "do_normalize": False},
    "qwen3_5": {
        "size": {"shortest_edge": 1024, "longest_edge": 40_000},
        "patch_size": 16,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "unscaled": {"min_pixels": 784, "max_pixels": 3136, "do_rescale": False},
}
MODES = ("RGB", "L", "1", "LA", "RGBA", "P", "CMYK", "YCbCr", "HSV", "RGBX")


@pytest.fixture(scope="module")
def oracle() -> Any:
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as theirs

    return theirs


def noise(mode: str, height: int, width: int, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
    if mode == "P":
        return image.convert("RGB").quantize(17)
    direct = mode in ("RGBA", "LA")
    return image.convert(mode) if direct else image.convert("RGB").convert(mode)


sizes = st.tuples(st.integers(1, 300), st.integers(1, 300)).filter(lambda s: max(s) <= 199 * min(s))


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=scaled(12))
@given(
    shapes=st.lists(sizes, min_size=1, max_size=3),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 9),
)
def test_equals_transformers(
    oracle: Any, name: str, shapes: list[tuple[int, int]], mode: str, seed: int
) -> None:
    images = [noise(mode, height, width, seed) for height, width in shapes]
    theirs = oracle.Qwen2VLImageProcessorPil(**CONFIGS[name])(images=images, return_tensors="np")
    patches, grids = process_images(images, read_qwen2_vl_images(Section(CONFIGS[name])))
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches, theirs["pixel_values"])
    np.testing.assert_array_equal(np.array(grids), theirs["image_grid_thw"])


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), name=st.sampled_from(list(CONFIGS)))
def test_smart_resize_equals_transformers(oracle: Any, height: int, width: int, name: str) -> None:
    config = read_qwen2_vl_images(Section(CONFIGS[name]))
    unit = config.patch_size * config.merge_size
    limits = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
    try:
        expected = oracle.smart_resize(height, width, factor=unit, **limits)
    except ValueError:
        with pytest.raises(VlmkitError, match=rf"{height}×{width} pixels .* limit is 200"):
            smart_resize(height, width, config)
    else:
        assert smart_resize(height, width, config) == expected


def test_the_aspect_ratio_limit_is_inclusive() -> None:
    assert smart_resize(200, 1, Qwen2VLImages())
    with pytest.raises(VlmkitError, match="aspect ratio"):
        smart_resize(201, 1, Qwen2VLImages())


def test_both_backends_agree_on_the_embedded_checkpoint() -> None:
    native = load_processor(SHAPES, backend="native")
    other = load_processor(SHAPES, backend="transformers")
    assert (native.backend, other.backend) == ("native", "transformers")
    images = [noise("RGBA", 40, 90, 1), noise("L", 112, 112, 2)]
    (a, a_grids), (b, b_grids) = native.process_images(images), other.process_images(images)
    assert a_grids == b_grids
    np.testing.assert_array_equal(a, b)
    with pytest.raises(VlmkitError, match="aspect ratio"):
        other.process_images([Image.new("RGB", (201, 1))])


def test_without_resizing_sizes_must_be_whole_patches() -> None:
    config = read_qwen2_vl_images(Section({"do_resize": False}))
    patches, grids = process_images([Image.new("RGB", (56, 28))], config)
    assert (len(patches), grids[0]) == (8, (1, 2, 4))
    with pytest.raises(VlmkitError, match="multiples of 28"):
        process_images([Image.new("RGB", (57, 28))], config)


def test_no_images_are_no_patches() -> None:
    patches, grids = process_images([], Qwen2VLImages())
    assert patches.shape == (0, 1176)
    assert grids == ()


@pytest.mark.parametrize(
    "values", [{"patch_size": 0}, {"merge_size": "2"}, {"image_mean": [1, 2]}, {"min_pixels": True}]
)
def test_bad_values_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(VlmkitError, match=f"here: {next(iter(values))} is"):
        read_qwen2_vl_images(Section(values, "", "here"))

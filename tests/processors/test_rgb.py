from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmkit.errors import VlmkitError
from vlmkit.processors.rgb import to_rgb


def gray(array: object, dtype: type) -> Image.Image:
    return Image.fromarray(np.array(array, dtype))


def first(image: Image.Image) -> object:
    return to_rgb(image).getpixel((0, 0))


@given(value=st.integers(0, 65535))
def test_16_bits_are_rounded_to_8(value: int) -> None:
    expected = int(np.rint(value / 257))
    assert first(gray([[value]], np.uint16)) == (expected,) * 3
    deep = gray([[value, 65535]], np.int32)
    assert deep.mode == "I"
    assert first(deep) == (expected,) * 3


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (gray([[200]], np.int32), 200),  # mode I that holds bytes
        (gray([[0.5]], np.float32), 128),
        (gray([[200.4]], np.float32), 200),
        (Image.new("1", (1, 1), 1), 255),
        (Image.new("LA", (1, 1), (0, 0)), 255),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 128)), 127),
    ],
)
def test_modes(image: Image.Image, expected: int) -> None:
    assert first(image) == (expected,) * 3


def test_a_transparent_colour_becomes_white() -> None:
    image = Image.new("P", (1, 1), 3)
    image.putpalette([9] * 768)
    image.info["transparency"] = 3
    assert first(image) == (255, 255, 255)
    plain = Image.new("RGB", (1, 1), (1, 2, 3))
    plain.info["transparency"] = (1, 2, 3)
    assert first(plain) == (255, 255, 255)


@pytest.mark.parametrize(
    "image",
    [
        gray([[-1]], np.int32),
        gray([[65536]], np.int32),
        gray([[256.0]], np.float32),
        gray([[np.nan]], np.float32),
    ],
)
def test_refused(image: Image.Image) -> None:
    with pytest.raises(VlmkitError, match=f"image mode {image.mode} "):
        to_rgb(image)

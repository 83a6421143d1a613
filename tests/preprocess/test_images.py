from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, load_image, resize_image
from vlmkit.preprocess.images import describe_source

SMALL = PreprocessConfig(max_image_pixels=10**6)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def two_pixels(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image.convert(mode)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_every_kind_of_source_gives_the_same_image(tmp_path: Path) -> None:
    data = encode(two_pixels())
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    text = base64.b64encode(data).decode()
    sources: list[Any] = [
        path,
        str(path),
        data,
        bytearray(data),
        io.BytesIO(data),
        two_pixels(),
        Image.open(path),
        f"data:image/png;base64,{text}",
        f"DATA:;base64,{text.rstrip('=')}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
    ]
    for source in sources:
        image = load_image(source)
        assert image.mode == "RGB"
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE], describe_source(source)


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "CMYK", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("PPM", "RGB", {}),
        ("TGA", "RGB", {}),
    ],
)
def test_formats(form: str, mode: str, options: dict[str, Any]) -> None:
    image = load_image(encode(two_pixels(mode), form, **options))
    found = np.array([image.getpixel((x, 0)) for x in (0, 1)])
    np.testing.assert_array_equal(found, [RED, BLUE])


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_exif_orientation(orientation: int, form: str) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (3, 5, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    loaded = load_image(data)
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(expected.convert("RGB")))
    assert loaded == load_image(loaded)  # upright stays upright
    assert loaded == load_image(Image.open(io.BytesIO(data)))


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data).getpixel((0, 0)) == RED


def test_a_16_bit_file_is_scaled() -> None:
    values = np.array([[0, 257 * 7, 65535]], np.uint16)
    image = load_image(encode(Image.fromarray(values)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 7, 255]


def test_transparency_is_composited_on_white() -> None:
    assert (
        load_image(encode(Image.new("RGBA", (1, 1), (9, 9, 9, 0)))).getpixel((0, 0)) == (255,) * 3
    )


def test_the_callers_image_is_left_alone() -> None:
    image = two_pixels()
    image.info["note"] = "kept"
    loaded = load_image(image)
    loaded.putpixel((0, 0), BLUE)
    assert image.getpixel((0, 0)) == RED
    assert image.info == {"note": "kept"}


@given(
    mode=st.sampled_from(
        ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"]
    ),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
def test_any_mode_and_size_becomes_rgb(mode: str, width: int, height: int) -> None:
    image = load_image(Image.new(mode, (width, height)))
    assert (image.mode, image.size) == ("RGB", (width, height))


def bad_sources(folder: Path) -> dict[str, tuple[Any, str]]:
    good = encode(Image.effect_noise((64, 64), 60).convert("RGB"))
    jpeg = encode(Image.effect_noise((64, 64), 60), "JPEG")
    files = {"empty.png": b"", "text.png": b"hello", "cut.png": good[:-200], "cut.jpg": jpeg[:300]}
    files |= {"bomb.png": png_header(60_000, 60_000), "flat.png": png_header(9, 0)}
    files |= {"big.png": png_header(13_000, 13_000), "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {
        "missing file": (folder / "tect.png", "no such file in .*did you mean 'text.png'"),
        "missing folder": (folder / "x" / "a.png", "no such file"),
        "folder": (folder, "a folder; give the path of an image file"),
        "empty file": (folder / "empty.png", r"empty.png: empty \(0 bytes\)"),
        "text": (str(folder / "text.png"), "text.png: not an image in a known format"),
        "program": (folder / "page.eps", "not an image in a known format"),
        "cut png": (folder / "cut.png", "corrupt or cut short"),
        "cut jpeg": (folder / "cut.jpg", "corrupt or cut short"),
        "cut bytes": (good[:-200], r"image in memory \(\d+ bytes\): the image is corrupt"),
        "no bytes": (b"", "empty"),
        "bomb": (folder / "bomb.png", "more than 178,956,970 pixels, the limit is 5,000,000"),
        "too large": (folder / "big.png", "13000×13000 = 169,000,000 pixels, the limit is"),
        "too large in memory": (Image.new("1", (3000, 3000)), r"PIL image \(1, height 3000"),
        "no height": (folder / "flat.png", "not an image in a known format"),
        "no pixels": (Image.new("RGB", (0, 4)), "has no pixels"),
        "data without comma": ("data:image/png;base64", "needs a comma"),
        "bad base64": ("data:image/png;base64,$$$$", "not valid base64"),
        "no data": ("data:image/png;base64,", "empty"),
        "null byte": ("a\0b.png", r"cannot be read \(is no name that a file can have\)"),
        "long name": ("x" * 5000, r"image x+… \(5000 characters\): cannot be read \(File name"),
        "other scheme": ("s3://bucket/a.png", "s3: addresses are not read"),
        "empty string": ("", "a folder; give the path of an image file in it"),
        "array": (np.zeros((2, 2, 3), np.uint8), "type ndarray cannot be read; .*fromarray"),
        "number": (3, "type int cannot be read"),
        "none": (None, "type NoneType cannot be read"),
        "values": (Image.fromarray(np.array([[-5.0]], np.float32)), "mode F with values from -5"),
    }


def test_bad_sources(tmp_path: Path) -> None:
    config = PreprocessConfig(max_image_pixels=5_000_000)
    for name, (source, message) in bad_sources(tmp_path).items():
        with pytest.raises(VlmkitError, match=message) as caught:
            load_image(source, config=config)
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < 600, name


@given(
    place=st.floats(0, 1),
    byte=st.integers(0, 255),
    cut=st.floats(0.1, 1.5),
    form=st.sampled_from(
        ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "ICO"]
    ),
)
def test_broken_files_give_an_image_or_the_one_error(
    place: float, byte: int, cut: float, form: str
) -> None:
    data = bytearray(encode(Image.linear_gradient("L").resize((20, 20)), form))
    data[min(int(place * len(data)), len(data) - 1)] = byte
    image, message = Image.new("RGB", (1, 1)), "image in memory ("
    try:
        image = load_image(bytes(data[: int(cut * len(data))]), config=SMALL)
    except VlmkitError as error:
        message = str(error)
    assert np.array(image).shape == (image.height, image.width, 3)
    assert message.startswith("image in memory (")
    assert "\n" not in message


@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_resize_is_exactly_height_then_width(height: int, width: int) -> None:
    image = resize_image(Image.new("RGB", (17, 9)), (height, width))
    assert (image.height, image.width) == (height, width)


@pytest.mark.parametrize(
    "values",
    [
        {"resize_shape": (0, 5)},
        {"resize_shape": (5,)},
        {"resize_shape": (True, 5)},
        {"resize_shape": (5, 70_000)},
        {"url_timeout_s": 0},
        {"max_download_bytes": 0},
        {"max_image_pixels": 10**9},
        {"resize": (5, 5)},
    ],
)
def test_config_limits(values: dict[str, Any]) -> None:
    with pytest.raises(VlmkitError):
        PreprocessConfig(**values)

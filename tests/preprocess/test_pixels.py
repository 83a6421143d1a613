"""Processed images are kept by what they show, and are bit for bit what processing gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.effort import scaled
from tests.processors.tiny import SHAPES, change_json, copy_shapes
from vlmkit import PixelCache, PromptCache, generate, load
from vlmkit.contracts.inputs import ImageGrid
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, prepare
from vlmkit.preprocess.pixels import Pixels, pixels_key
from vlmkit.processors import Processor, load_processor

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def shapes() -> Processor:
    return load_processor(SHAPES)


def noise(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def pixels(size: int, fill: float = 1.0) -> Pixels:
    return Pixels.of(np.full((4, size // 16), fill, np.float32), ImageGrid(1, 2, 2))


def same(one: Any, other: Any) -> bool:
    return all(
        (a.digest, a.shape, a.span, a.data.tobytes())
        == (b.digest, b.shape, b.span, b.data.tobytes())
        for a, b in zip(one.media, other.media, strict=True)
    )


@settings(max_examples=scaled(20))
@given(st.integers(30, 90), st.integers(30, 90), st.sampled_from([None, (56, 84)]), st.booleans())
def test_what_is_kept_is_what_processing_gives(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: Processor,
    width: int,
    height: int,
    resize_shape: tuple[int, int] | None,
    on_disk: bool,
) -> None:
    image, config = noise(width, width, height), PreprocessConfig(resize_shape=resize_shape)
    folder = tmp_path_factory.mktemp("pixels") if on_disk else None
    known = PixelCache(0 if on_disk else 2**20, folder=folder)
    plain = prepare(shapes, PLACE, [image], config=config)
    first, second = (prepare(shapes, PLACE, [image], config=config, known=known) for _ in range(2))
    assert same(plain, first)
    assert same(plain, second)
    assert np.array_equal(plain.content_ids, second.content_ids)


def test_an_image_is_processed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, processor = load("shapes")
    seen: list[int] = []
    process = Processor.process_images

    def counted(self: Processor, images: Any) -> Any:
        seen.append(len(images))
        return process(self, images)

    monkeypatch.setattr(Processor, "process_images", counted)

    def answer(question: str, cache: PromptCache) -> str:
        prompt = f"{PLACE}{question}"
        return generate(model, processor, prompt, noise(0), max_tokens=3, prompt_cache=cache).text

    cache = PromptCache(pixels=PixelCache(folder=tmp_path))
    one = answer("How many?", cache)
    answer("Which colour?", cache)
    assert seen == [1]
    cache.clear()
    assert (cache.pixels.num_bytes, len(list(tmp_path.iterdir()))) == (0, 1)
    assert answer("How many?", cache) == one
    assert seen == [1]
    assert answer("How many?", PromptCache()) == one
    assert seen == [1, 1]


def test_what_changes_the_pixels_changes_the_key(shapes: Processor, tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    change_json(folder / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    rules = [str(one.image_rules) for one in (shapes, load_processor(folder))]
    image, turned = noise(0, 60, 40), noise(0, 40, 60)
    keys = {
        *(pixels_key(image, rule, shape) for rule in rules for shape in (None, (28, 28))),
        *(pixels_key(one, rules[0], None) for one in (turned, noise(1))),
    }
    assert len(keys) == 6
    assert pixels_key(image.copy(), rules[0], None) in keys


def test_the_least_recently_used_go_first() -> None:
    cache = PixelCache(max_bytes=256)
    for name in "abcd":
        cache.put(name, pixels(64))
    assert cache.find("a") is not None
    cache.put("e", pixels(64))
    cache.put("e", pixels(64))
    assert [name for name in "abcde" if cache.find(name) is not None] == list("acde")
    cache.put("too large", pixels(512))
    assert (cache.find("too large"), cache.num_bytes) == (None, 256)
    with pytest.raises(ValueError, match="read-only"):
        cache.find("a").patches[0, 0] = 2  # type: ignore[union-attr]


def test_files_stay_within_their_limit(tmp_path: Path) -> None:
    size = 64 + 256
    cache = PixelCache(0, folder=tmp_path / "new" / "folder", max_disk_bytes=2 * size)
    for place, name in enumerate("abc"):
        cache.put(name, pixels(64, place))
        path = tmp_path / "new" / "folder" / f"{name}.pixels"
        os.utime(path, (place, place))
    assert [name for name in "abc" if cache.find(name) is not None] == ["b", "c"]
    found = cache.find("c")
    assert found is not None
    assert found.patches.tolist() == pixels(64, 2).patches.tolist()
    cache.put("too large", pixels(1024))
    assert cache.find("too large") is None
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 2


def test_a_damaged_file_counts_as_none(shapes: Processor, tmp_path: Path) -> None:
    image, config = noise(0), PreprocessConfig()
    plain = prepare(shapes, PLACE, [image], config=config)
    cache = PixelCache(0, folder=tmp_path)
    prepare(shapes, PLACE, [image], config=config, known=cache)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:300], b"\xff" * 400, whole[:-1] + b"\x01", whole + b"1234"):
        path.write_bytes(damaged)
        assert cache.find(path.stem) is None
        assert same(plain, prepare(shapes, PLACE, [image], config=config, known=cache))
        assert path.read_bytes() == whole
    path.unlink()
    path.mkdir()
    assert cache.find(path.stem) is None
    with pytest.raises(VlmkitError, match=r"\.pixels: cannot be written"):
        prepare(shapes, PLACE, [image], config=config, known=cache)


@pytest.mark.parametrize(
    "limits", [{"max_bytes": -1}, {"max_bytes": None}, {"max_disk_bytes": 1.5}]
)
def test_limits_are_counts(limits: dict[str, Any]) -> None:
    name = next(iter(limits))
    with pytest.raises(VlmkitError, match=f"^{name} is .*; it must be 0 or more$"):
        PixelCache(**limits)
    with pytest.raises(VlmkitError, match="pixels is of type int; give a PixelCache"):
        PromptCache(pixels=3)  # type: ignore[arg-type]
    file = Path(__file__)
    with pytest.raises(VlmkitError, match="cannot be written: is there already, and no folder"):
        PixelCache(folder=file)

"""How exporters write the image settings: read for what they mean, refused where pixels change."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loading.mlx_vlm_convert import (
    GOLDENS,
    convert,
    make_images,
    mlx_vlm_patches,
    write_source,
)
from tests.loading.three_ways import complete, edit, refusal
from vlmkit.models.families import FAMILIES
from vlmkit.processors import load_processor
from vlmkit.processors.image_rules import IMAGE_FAMILIES
from vlmkit.processors.loading import AUDIO_FAMILIES

ROUNDING = 5e-7  # of a few float32 operations on numbers up to 2
SIZES = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
PIXELS = {"min_pixels": 64, "max_pixels": 4096}
EDGES = {"shortest_edge": 64, "longest_edge": 4096}
TYPE = {"image_processor_type": "Qwen2VLImageProcessor"}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return complete(tmp_path / "model")


def test_every_family_has_its_media() -> None:
    for kind, names in (("image", IMAGE_FAMILIES), ("audio", AUDIO_FAMILIES)):
        taking = [family for family in FAMILIES if kind in family.takes]
        assert sorted(names) == sorted(name for family in taking for name in family.model_types)


@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_what_mlx_vlm_converts(backend: Any, folder: Path) -> None:
    shutil.copyfile(GOLDENS / "processor_config.json", folder / "processor_config.json")
    patches, grids = load_processor(folder, backend=backend).process_images(make_images())
    expected = np.load(GOLDENS / "patches.npy")
    assert [grid[1:] for grid in grids] == [(2, 2), (18, 12)]
    assert patches.shape == expected.shape
    assert np.abs(patches - expected).max() < ROUNDING


@pytest.mark.mlx_vlm
@pytest.mark.torch
def test_what_mlx_vlm_converts_live(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
        made = convert(write_source(tmp_path / "source"), tmp_path / "made", "unquantized")
        expected = mlx_vlm_patches(made)
    patches, _ = load_processor(made).process_images(make_images())
    assert np.abs(patches - expected).max() < ROUNDING


@pytest.mark.parametrize("backend", ["native", "transformers"])
@pytest.mark.parametrize(
    "values",
    [
        {**TYPE, **SIZES, "size": EDGES},
        {**TYPE, **SIZES, "size": PIXELS},
        {**TYPE, **SIZES, **PIXELS, "size": {"height": 3, "width": 3}},
        {**TYPE, **SIZES, **PIXELS, "size": {"shortest_edge": 1, "longest_edge": 8}},
        {**SIZES, **PIXELS},
        {**SIZES, **PIXELS, "image_processor_type": None},
        {**SIZES, **PIXELS, "feature_extractor_type": "Qwen2VLImageProcessor"},
        {**SIZES, **PIXELS, "image_processor_type": "Qwen3VLImageProcessor"},
        {**SIZES, **PIXELS, "image_processor_type": "Qwen2_5_VLImageProcessor"},
        {**SIZES, **PIXELS, "image_processor_type": "Qwen2VLImageProcessorFast"},
        {**TYPE, **SIZES, **PIXELS, "resample": 3},
        {**TYPE, **SIZES, **PIXELS, "resample": "BICUBIC"},
        {**TYPE, **SIZES, **PIXELS, "do_convert_rgb": True, "data_format": "channels_first"},
        {**TYPE, **SIZES, **PIXELS, **CLIP, "rescale_factor": 0.00392156862745098},
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["preprocessor", "processor"])
def test_the_same_meaning_is_the_same_pixels(
    values: dict[str, Any], nested: bool, backend: Any, folder: Path
) -> None:
    expected, grids = load_processor(folder).process_images(make_images())
    (folder / "preprocessor_config.json").write_text("{}")
    where = "processor_config.json" if nested else "preprocessor_config.json"
    edit(folder / where, **({"image_processor": values} if nested else values))
    patches, found = load_processor(folder, backend=backend).process_images(make_images())
    assert found == grids
    assert np.array_equal(patches, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor' is not supported"),
        ({"image_processor_type": 5}, "image_processor_type 5 is not supported"),
        ({"resample": 9}, "resample is 9; it has to be one of 0 (nearest), "),
        ({"resample": "sharp"}, "resample is 'sharp'; it has to be one of 0 (nearest), "),
        ({"resample": True}, "resample is True"),
        ({"patch_size": 16}, "patch_size is 16, but "),
        ({"merge_size": 1}, "merge_size is 1, but "),
        ({"temporal_patch_size": 1}, "vision_config.temporal_patch_size is 2; the two files"),
        ({"max_pixels": None, "size": {"height": 9}}, "size has 'height'; it is read with short"),
        ({"max_pixels": None, "size": {"longest_edge": "big"}}, "size.longest_edge is 'big'"),
        ({"size": 448}, "size is 448; it has to be a mapping"),
        ({"do_rescale": "yes"}, "do_rescale is 'yes'; it has to be true or false"),
        ({"rescale_factor": 0}, "rescale_factor is 0; it has to be a number above 0"),
        ({"image_std": [1, 0, 1]}, "image_std is [1, 0, 1]; it has to be one number above 0 or"),
        ({"image_mean": [0.5]}, "image_mean is [0.5]; it has to be one number or three"),
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["preprocessor", "processor"])
def test_other_pixels_are_refused(
    change: dict[str, Any],
    said: str,
    nested: bool,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {**TYPE, **SIZES, **PIXELS, **change}
    if nested:
        edit(folder / "processor_config.json", image_processor=values)
    else:
        edit(folder / "preprocessor_config.json", **values)
    message = refusal(folder, capsys)
    file = "processor_config.json: image_processor." if nested else "preprocessor_config.json: "
    assert message.startswith(str(folder / file))
    assert said in message

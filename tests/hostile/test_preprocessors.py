"""Preprocessor settings and sizes that would fill the memory are refused before a pixel moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hostile.limited import Call, run_limited
from tests.hostile.test_checkpoints import SHAPES, folder_with
from vlmkit import VlmkitError, generate, load

NAME = "preprocessor_config.json"
PLACE = "<|image_pad|>"


def settings(**changes: Any) -> bytes:
    values = json.loads((SHAPES / NAME).read_text())
    del values["size"]
    return json.dumps({**values, **changes}).encode()


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"min_pixels": 10**8, "max_pixels": 10**8}, "min_pixels"),
    ({"min_pixels": 2**31 - 1, "max_pixels": 2**31 - 1}, "min_pixels"),
    ({"merge_size": 10**6}, "merge_size"),
    ({"temporal_patch_size": 10**4}, "temporal_patch_size"),
    ({"patch_size": 0}, "patch_size"),
    ({"patch_size": 10**6}, "patch_size"),
    ({"image_mean": "x"}, "image_mean"),
    ({"image_mean": [1, 2]}, "image_mean"),
    ({"image_std": [0, 0, 0]}, "image_std"),
    ({"image_std": [float("nan")] * 3}, "image_std"),
    ({"rescale_factor": "x"}, "rescale_factor"),
    ({"resample": [3]}, "resample"),
    ({"size": 5}, "size"),
]


def test_settings(tmp_path: Path) -> None:
    folders = [
        folder_with(tmp_path / str(number), **{NAME: settings(**changes)})
        for number, (changes, _) in enumerate(SETTINGS)
    ]
    calls = [Call("vlmkit.processors:load_processor", (folder,)) for folder in folders]
    outcomes = run_limited(calls, imports=["vlmkit.processors.loading"])
    for (_, key), outcome in zip(SETTINGS, outcomes, strict=True):
        assert (outcome.kind, outcome.is_lawful()) == ("error", True), (key, outcome)
        assert f"{NAME}: {key}" in outcome.text


def test_sizes_of_a_request(tmp_path: Path) -> None:
    content = settings(min_pixels=4 * 10**7, max_pixels=4 * 10**7)
    model, processor = load(str(folder_with(tmp_path / "model", **{NAME: content})))
    image = Image.new("RGB", (64, 48))
    with pytest.raises(VlmkitError, match="but the model's context is 2048"):
        generate(model, processor, PLACE, image=image, max_tokens=1)
    with pytest.raises(VlmkitError, match="resize_shape: 30000×30000 is 900,000,000 pixels"):
        generate(model, processor, PLACE, image=image, resize_shape=(30_000, 30_000), max_tokens=1)
    model, processor = load("shapes")
    with pytest.raises(VlmkitError, match=r"for the first [0-9]+ of 500 images"):
        generate(model, processor, PLACE * 500, image=[image] * 500, max_tokens=1)

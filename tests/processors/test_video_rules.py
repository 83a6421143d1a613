"""Videos as transformers' processors make them, kept in a golden file (see `video_oracle.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processors.tiny_video import CASES, SAMPLINGS, frames
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import load_video
from vlmkit.processors.qwen2_vl import value_table
from vlmkit.processors.video_rules import Times, frame_times, read_qwen_video, video_rules

GOLDEN = Path(__file__).parents[1] / "goldens" / "video_processors.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", CASES)
def test_patches_and_grids(name: str, golden: dict[str, np.ndarray]) -> None:
    case = CASES[name]
    config = read_qwen_video(Section(case.config), case.times)
    rules = video_rules(config)
    count, height, width = case.shape
    size = rules.size(count, height, width)
    given = [Image.fromarray(frame) for frame in frames(case.shape)]
    video = load_video(given, rules)
    assert video.frames.shape == (count, *size, 3)
    patches, grid = rules.process(video.frames)
    assert list(grid) == golden[f"{name}_grid"].tolist()
    off = np.abs(patches - golden[f"{name}_patches"])
    if size == (height, width):
        assert off.max() < 1e-6
    else:  # another bicubic: a step of a byte, here and there
        step = float(np.diff(value_table(config.images), axis=1).max())
        assert off.max() < 1.01 * step
        assert (off > 1e-6).mean() < 0.02


@pytest.mark.parametrize("number", range(len(SAMPLINGS)))
def test_frames_taken(number: int, golden: dict[str, np.ndarray]) -> None:
    times, total, rate, fps, most = SAMPLINGS[number]
    rules = video_rules(read_qwen_video(Section({}), times))
    assert rules.sample(total, rate, fps, most).tolist() == golden[f"sampling_{number}"].tolist()


@pytest.mark.parametrize("times", ["none", "positions", "text"])
def test_any_number_of_frames_is_sampled(times: Times) -> None:
    rules = video_rules(read_qwen_video(Section({}), times))
    for total in range(1, 40):
        for most in (None, 1, 2, 3, 8):
            taken = rules.sample(total, 3.0, None, most)
            assert 1 <= len(taken) <= max(most or 768, 2)
            assert 0 <= taken.min() <= taken.max() < total
            assert (np.diff(taken) > 0).all()


def test_times_of_pairs() -> None:
    assert frame_times(np.array([0.0, 1.0, 2.0, 3.0]), 2).tolist() == [0.5, 2.5]
    assert frame_times(np.array([4.0]), 2).tolist() == [4.0]
    assert frame_times(np.array([1.0, 2.0]), 1).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fps": 0}, "fps is 0; it has to be a number above 0"),
        ({"max_frames": 10**6}, "max_frames is 1000000; 4096 at most"),
        ({"min_frames": "4"}, "min_frames"),
    ],
)
def test_settings_that_cannot_be_used(values: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        read_qwen_video(Section(values), "text")


def test_sizes_beyond_what_is_held() -> None:
    rules = video_rules(read_qwen_video(Section({}), "positions"))
    with pytest.raises(VlmkitError, match=r"4096 frames .* take fewer by fps or max_frames"):
        rules.size(4096, 2000, 2000)
    with pytest.raises(VlmkitError, match="aspect ratio"):
        rules.size(2, 10, 3000)
    fixed = video_rules(read_qwen_video(Section({"do_resize": False}), "text"))
    with pytest.raises(VlmkitError, match="multiples of 28; set resize_shape"):
        fixed.size(2, 30, 56)

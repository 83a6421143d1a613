"""Videos of every source and form, and those that cannot be read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.models.tiny_audio import sound
from tests.sounds import wav
from tests.videos import encode, frames, gif
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, Video, as_videos, containers, load_video, videos
from vlmkit.processors.video_rules import read_qwen_video, video_rules

SIZES = {"patch_size": 4, "merge_size": 2, "min_pixels": 64, "max_pixels": 4096}
RULES = video_rules(read_qwen_video(Section(SIZES), "positions"))


def levels(video: Any) -> np.ndarray:
    """How bright each frame is."""
    return np.asarray(video.frames.reshape(len(video.frames), -1).mean(axis=1))


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi", "mpegts"])
def test_files_are_sampled_and_decoded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.video"
    path.write_bytes(encode(24, 8, kind=kind, codec="mpeg4" if kind != "mpegts" else "mpeg2video"))
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        video = load_video(source, RULES)
        assert video.frames.shape == (6, 32, 48, 3)  # 3 seconds, 2 frames of each
        assert video.rate == pytest.approx(2, rel=0.1)
        assert np.abs(levels(video) - levels_of(24, [0, 4, 8, 12, 16, 20])).max() < 8
        assert video.times == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], rel=0.1)
    faster = load_video(path, RULES, config=PreprocessConfig(fps=8))
    assert len(faster.frames) == 24
    fewer = load_video(path, RULES, config=PreprocessConfig(fps=8, max_frames=5))
    assert len(fewer.frames) == 4  # whole pairs
    assert load_video(fewer, RULES) is fewer
    small = load_video(path, RULES, config=PreprocessConfig(resize_shape=(16, 24)))
    assert small.frames.shape == (6, 16, 24, 3)


def levels_of(count: int, places: list[int]) -> np.ndarray:
    return np.asarray(frames(count)[places, 0, 0, 0].astype(float))


def test_an_animation_is_a_video() -> None:
    pytest.importorskip("av", reason="not installed: vlmkit[video]")
    video = load_video(gif(20), RULES)
    assert len(video.frames) == 4
    assert np.abs(levels(video) - levels_of(20, [0, 5, 10, 15])).max() < 8


def test_frames_one_by_one(tmp_path: Path) -> None:
    pixels = frames(3)
    for place, frame in enumerate(pixels):
        Image.fromarray(frame).save(tmp_path / f"{place}.png")
    paths = sorted(tmp_path.iterdir())
    for source in (pixels, list(map(Image.fromarray, pixels)), paths, list(map(str, paths))):
        video = load_video(source, RULES)
        assert np.array_equal(video.frames, pixels)
        assert video.times.tolist() == [0, 0.5, 1]
        assert load_video(source, RULES, config=PreprocessConfig(fps=4)).rate == 4
    mixed = [Image.new("RGB", (48, 32)), Image.new("RGB", (20, 60))]
    assert load_video(mixed, RULES).frames.shape == (2, 32, 48, 3)
    assert [len(video) for video in as_videos(mixed)] == [2]
    assert len(as_videos([mixed, "a.mp4"])) == 2
    assert as_videos(None) == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "a video of zero frames"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"a video of shape \(0, 8, 8, 3\)"),
        (np.zeros((2, 8, 8, 3)), "float64; give uint8 values"),
        (7, "a video of type int cannot be read"),
        ([7], "an image of type int cannot be read"),
        (b"", r"video in memory \(0 bytes\): empty"),
        ("none.mp4", "video none.mp4: no such file"),
        ("/dev/zero", "is a device, not a file"),
        ([Image.new("RGB", (8, 8))] * 5, r"4 at most \(preprocess.max_frames\); give fewer"),
        (np.zeros((2, 1, 900, 3), np.uint8), "aspect ratio"),
    ],
)
def test_refused(source: Any, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        load_video(source, RULES, config=PreprocessConfig(max_frames=4))
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VlmkitError, match="is a pipe, not a file"):
        load_video(tmp_path / "a.mp4", RULES)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "find_package", lambda name: None)
    with pytest.raises(VlmkitError, match=r"to read video files install vlmkit\[video\], or give"):
        load_video(b"....", RULES)


def test_files_that_are_damaged_or_no_videos() -> None:
    good = encode(16)
    with pytest.raises(VlmkitError, match="has no video stream; give a file with pictures"):
        load_video(wav(sound(900)), RULES)
    for bad in (good[:200], b"\0" * 500, b"#EXTM3U\n/etc/passwd\n", b"RIFF" + b"\xff" * 90):
        with pytest.raises(VlmkitError, match=r"^video in memory .*(corrupt|no video stream|zero)"):
            load_video(bad, RULES)
    # Damaged in the middle: what can be shown is, or there is one line that says why not.
    rng = np.random.default_rng(0)
    for _ in range(20):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 30):
            data[place] = rng.integers(0, 256)
        video, message = attempt(bytes(data))
        assert video is None or video.frames.shape[1:] == (32, 48, 3)
        assert video is not None or message.startswith("video in memory")
        assert "\n" not in message


def attempt(source: bytes) -> tuple[Video | None, str]:
    """Load a video, or return the error's text."""
    try:
        return load_video(source, RULES), ""
    except VlmkitError as error:
        return None, str(error)


def test_limits_are_checked_before_frames_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(24)
    for config, message in (
        (PreprocessConfig(max_image_pixels=1000), r"frames of 32×48 = 1,536 pixels, the limit is"),
        (PreprocessConfig(max_video_s=2), r"longer than 2 s \(preprocess.max_video_s\)"),
    ):
        with pytest.raises(VlmkitError, match=message):
            load_video(data, RULES, config=config)
    monkeypatch.setattr(videos, "MAX_DECODED_FRAMES", 10)
    with pytest.raises(VlmkitError, match="more than 10 frames; cut it"):
        load_video(data, RULES)

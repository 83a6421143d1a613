"""How the Qwen families see a video: which frames, of what size, and with what times.

Reference: Wang et al. (2024), "Qwen2-VL", arXiv:2409.12191; Bai et al. (2025), "Qwen2.5-VL",
arXiv:2502.13923 (times as positions); Bai et al. (2025), "Qwen3-VL", arXiv:2511.21631 (times as
text). The numbers are those of the video processors of transformers on frames of the final size;
Pillow resizes in place of torchvision, whose bicubic differs from it by a step of a byte here and
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.inputs import ImageGrid
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.processors.patch_limits import MAX_NUMBERS
from vlmkit.processors.qwen2_vl import (
    Qwen2VLImages,
    read_qwen2_vl_images,
    smart_resize,
    value_table,
)

Times = Literal["none", "positions", "text"]
TIMES: dict[str, Times] = {
    "qwen2_vl": "none",
    "qwen2_5_vl": "positions",
    "qwen3_vl": "text",
    "qwen3_vl_moe": "text",
    "qwen3_5": "text",
    "qwen3_5_moe": "text",
}
"""How the families know when a frame is, by model type."""
DEFAULT_FPS = 2.0
MAX_FRAMES = 4096
"""Frames of one video that a model sees; those in use take 768."""


class QwenVideo(NamedTuple):
    """How a video becomes patches."""

    images: Qwen2VLImages  # sizes, and how pixels become numbers; its pixel range is a frame's
    times: Times
    fps: float = DEFAULT_FPS
    min_frames: int = 4
    max_frames: int = 768


class VideoRules(NamedTuple):
    """How a family sees videos."""

    fps: float  # frames to take of a second where nobody says
    most_frames: int  # to take of a video where nobody says
    times: Times
    temporal_patch_size: int  # frames that are seen as one
    resample: int  # Pillow's number of the filter that frames are resized with
    sample: Callable[[int, float, float | None, int | None], NDArray[np.int64]]
    # (frames, their rate, frames to take of a second, at most) -> the frames to take
    size: Callable[[int, int, int], tuple[int, int]]
    # (frames taken, height, width in pixels) -> the size that frames are brought to
    process: Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], ImageGrid]]
    # frames [T, height, width, 3] of that size -> patches, and how many


def read_qwen_video(section: Section, times: Times) -> QwenVideo:
    """Read a ``video_preprocessor_config.json``, or the ``preprocessor_config.json`` in its place.

    Raises:
        VlmkitError: a value cannot be used, named with its key.

    Example:
        >>> read_qwen_video(Section({"fps": 1, "max_frames": 16}), "positions")[2:]
        (1.0, 4, 16)
    """
    config = QwenVideo(
        images=read_qwen2_vl_images(section),
        times=times,
        fps=section.number("fps", DEFAULT_FPS),
        min_frames=section.positive("min_frames", 4),
        max_frames=section.positive("max_frames", 768),
    )
    if config.max_frames > MAX_FRAMES:
        raise section.error("max_frames", f"is {config.max_frames}; {MAX_FRAMES} at most")
    return config


@cache
def video_rules(config: QwenVideo) -> VideoRules:
    """Return the rules as functions; equal configs have equal ones."""
    return VideoRules(
        fps=config.fps,
        most_frames=config.max_frames,
        times=config.times,
        temporal_patch_size=config.images.temporal_patch_size,
        resample=config.images.resample,
        sample=partial(sample_frames, config=config),
        size=partial(frame_size, config=config),
        process=partial(process_frames, config=config),
    )


def sample_frames(
    total: int, rate: float, fps: float | None, most: int | None, *, config: QwenVideo
) -> NDArray[np.int64]:
    """Return which frames of a video are taken, evenly spaced.

    Args:
        total: frames of the video, at least 1.
        rate: frames per second.
        fps: frames to take of a second; None: the checkpoint's number.
        most: frames to take at most; None: the checkpoint's number.
        config: the family's rules.

    Example:
        >>> config = QwenVideo(Qwen2VLImages(), "positions")
        >>> sample_frames(100, 25.0, None, None, config=config).tolist()
        [0, 12, 25, 37, 50, 62, 75, 87]
    """
    fps = config.fps if fps is None else fps
    highest = min(config.max_frames if most is None else most, total)
    wanted = total / rate * fps
    if config.times == "text":
        count = min(max(int(wanted), config.min_frames), highest)
        return np.linspace(0, total - 1, count).round().astype(np.int64)
    unit = config.images.temporal_patch_size
    highest = max(highest // unit * unit, min(unit, total))
    count = math.floor(min(max(wanted, config.min_frames), highest) / unit) * unit or highest
    # In float32, as torch counts: far into a long video that is one frame off here and there.
    return (np.arange(count) * (total / count)).astype(np.float32).astype(np.int64)


def frame_size(num_frames: int, height: int, width: int, *, config: QwenVideo) -> tuple[int, int]:
    """Return the (height, width) in pixels that every frame is brought to.

    Raises:
        VlmkitError: an aspect ratio above 200, or too many numbers in all.

    Example:
        >>> frame_size(4, 480, 640, config=QwenVideo(Qwen2VLImages(), "positions"))
        (476, 644)
    """
    images = config.images
    unit = images.patch_size * images.merge_size
    if not images.do_resize:
        new_height, new_width = height, width
        if height % unit or width % unit:
            raise VlmkitError(
                f"frames of {height}×{width} pixels (height×width): the checkpoint switches"
                f" resizing off (do_resize), so both must be multiples of {unit}; set resize_shape"
            )
    elif config.times == "text":
        new_height, new_width = _size_in_time(num_frames, height, width, images)
    else:
        new_height, new_width = smart_resize(height, width, images)
    padded = num_frames + -num_frames % images.temporal_patch_size
    if 3 * padded * new_height * new_width > MAX_NUMBERS:
        raise VlmkitError(
            f"{num_frames} frames of {new_height}×{new_width} pixels are more than"
            f" {MAX_NUMBERS // 3:,} pixels in all; take fewer by fps or max_frames, or set a"
            " smaller resize_shape"
        )
    return new_height, new_width


def _size_in_time(
    num_frames: int, height: int, width: int, images: Qwen2VLImages
) -> tuple[int, int]:
    """Return the size where the pixel range is that of all frames together."""
    unit = images.patch_size * images.merge_size
    if height < unit or width < unit:
        scale = max(unit / height, unit / width)
        height, width = int(height * scale), int(width * scale)
    # The number of frames counts once as it is and once as whole temporal patches.
    whole = round(num_frames / images.temporal_patch_size) * images.temporal_patch_size
    new_height, new_width = round(height / unit) * unit, round(width / unit) * unit
    free = images._replace(min_pixels=1, max_pixels=2**62)
    smart_resize(height, width, free)  # refuses aspect ratios
    if whole * new_height * new_width > images.max_pixels:
        scale = math.sqrt(num_frames * height * width / images.max_pixels)
        new_height = max(unit, math.floor(height / scale / unit) * unit)
        new_width = max(unit, math.floor(width / scale / unit) * unit)
    elif whole * new_height * new_width < images.min_pixels:
        scale = math.sqrt(images.min_pixels / (num_frames * height * width))
        new_height = math.ceil(height * scale / unit) * unit
        new_width = math.ceil(width * scale / unit) * unit
    return new_height, new_width


def process_frames(
    frames: NDArray[np.uint8], *, config: QwenVideo
) -> tuple[NDArray[np.float32], ImageGrid]:
    """Normalise frames and cut them into patches of ``temporal_patch_size`` frames each.

    The last frame is repeated where they do not divide.

    Args:
        frames: uint8 ``[T, height, width, 3]``, of the size that :func:`frame_size` says.
        config: the family's rules.

    Returns:
        Patches float32 ``[N, 3 * time * size * size]`` in the order of images' patches, frame
        after frame, and the grid.

    Example:
        >>> config = QwenVideo(Qwen2VLImages(), "positions")
        >>> patches, grid = process_frames(np.zeros((3, 56, 84, 3), np.uint8), config=config)
        >>> patches.shape, grid
        ((48, 1176), ImageGrid(time=2, height=4, width=6))
    """
    images = config.images
    time, patch, merge = images.temporal_patch_size, images.patch_size, images.merge_size
    if missing := -len(frames) % time:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    steps, rows, columns = (
        len(frames) // time,
        frames.shape[1] // patch,
        frames.shape[2] // patch,
    )
    table = value_table(images)
    cut = frames.reshape(
        steps, time, rows // merge, merge, patch, columns // merge, merge, patch, 3
    ).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    pixels = cut.reshape(steps * rows * columns, 3, time * patch * patch)
    patches = np.empty(pixels.shape, np.float32)
    for channel in range(3):
        patches[:, channel] = table[channel][pixels[:, channel]]
    return patches.reshape(len(patches), -1), ImageGrid(steps, rows, columns)


def frame_times(seconds: NDArray[np.float64], temporal_patch_size: int) -> NDArray[np.float64]:
    """Return the time of each temporal patch: half-way between its first and its last frame.

    Example:
        >>> frame_times(np.array([0.0, 0.5, 1.0]), 2).tolist()
        [0.25, 1.0]
    """
    missing = -len(seconds) % temporal_patch_size
    padded = np.concatenate([seconds, np.repeat(seconds[-1:], missing)])
    groups = padded.reshape(-1, temporal_patch_size)
    return np.asarray((groups[:, 0] + groups[:, -1]) / 2)

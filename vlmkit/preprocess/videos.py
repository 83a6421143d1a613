"""Any video source to the frames that a model sees, upright, 8-bit RGB and of the size it takes.

Files are decoded by PyAV, frame after frame: only those that are taken are kept, resized at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.errors import VlmkitError
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.preprocess.containers import NeedsPackage, decoder_of, opened_container
from vlmkit.preprocess.images import check_source, load_image, resize_image
from vlmkit.preprocess.sources import READABLE_TYPES, open_source, source_name
from vlmkit.processors.video_rules import VideoRules

MAX_VIDEO_BYTES = 4 * 2**30
"""Of a video file, which is read as it is decoded and never held as a whole."""
MAX_DECODED_FRAMES = 1_000_000
"""Frames of a video file that are gone through: nine hours at 30 per second."""


class Video(NamedTuple):
    """The frames of a video that a model sees."""

    frames: NDArray[np.uint8]  # [T, height, width, 3], of the size that the model takes
    times: NDArray[np.float64]  # [T], when each is seen, in seconds
    rate: float  # of these frames, per second
    name: str  # where they are from, for errors


VideoSource: TypeAlias = (
    str
    | Path
    | bytes
    | bytearray
    | memoryview
    | io.BytesIO
    | list[Any]
    | tuple[Any, ...]
    | NDArray[np.uint8]
)
"""A path, an http(s) URL, a ``data:`` URI, an encoded video in memory, or its frames: a list of
images or a uint8 array ``[frames, height, width, 3]``."""


def as_videos(value: Any) -> tuple[Any, ...]:
    """Nothing, one video source or a list of sources as a tuple.

    A list of Pillow images is one video; so is each list within a list.

    Example:
        >>> frame = Image.new("RGB", (8, 8))
        >>> len(as_videos([frame, frame])), len(as_videos([[frame], "a.mp4"]))
        (1, 2)
    """
    if value is None:
        return ()
    if isinstance(value, Video):
        return (value,)
    if not isinstance(value, list | tuple):
        return (value,)
    are_frames = len(value) > 0 and all(isinstance(entry, Image.Image) for entry in value)
    return (list(value),) if are_frames else tuple(value)


def check_video(source: object) -> None:
    """Refuse what is of no type that a video can be read from.

    Raises:
        VlmkitError: says what came and what to give.
    """
    if isinstance(source, (Video, *READABLE_TYPES)):
        return
    if isinstance(source, list | tuple):
        if not source:
            raise VlmkitError("a video of zero frames; give at least one")
        for frame in source:
            check_source(frame)
        return
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 4 or source.shape[3] != 3 or not source.size:
            raise VlmkitError(
                f"a video of shape {source.shape} and type {source.dtype}; give uint8 values"
                " [frames, height, width, 3]"
            )
        return
    raise VlmkitError(
        f"a video of type {type(source).__name__} cannot be read; give a path, a URL, a data: URI,"
        " bytes, or a list of frames"
    )


def load_video(
    source: VideoSource | Video, rules: VideoRules, *, config: PreprocessConfig | None = None
) -> Video:
    """Load the frames of a video that a family sees.

    Args:
        source: see :data:`VideoSource`. Of frames given one by one all are taken;
            ``config.fps`` says how many there are in a second.
        rules: which frames are taken, and their size.
        config: the limits; None takes the defaults.

    Raises:
        VlmkitError: the source cannot be read as a video, named with what would work.
    """
    limits = PreprocessConfig() if config is None else config
    check_video(source)
    if isinstance(source, Video):
        return source
    if isinstance(source, list | tuple | np.ndarray):
        return _of_frames(source, rules, limits)
    name = source_name(source, "video")
    with open_source(source, name, limits, MAX_VIDEO_BYTES) as stream:
        if not stream.read(1):
            raise VlmkitError(f"{name}: empty (0 bytes); give a video file")
        stream.seek(0)
        try:
            return _decode(stream, name, rules, limits)
        except NeedsPackage:
            raise VlmkitError(
                f"{name}: to read video files install vlmkit[video], or give the frames as a list"
                " of images"
            ) from None


def _of_frames(source: Any, rules: VideoRules, limits: PreprocessConfig) -> Video:
    name = f"video of {len(source)} frames"
    most = rules.most_frames if limits.max_frames is None else limits.max_frames
    if len(source) > most:
        raise VlmkitError(f"{name}: {most} at most (preprocess.max_frames); give fewer")
    fit: _Fit | None = None
    frames = []
    for entry in source:
        image = load_image(
            Image.fromarray(entry) if isinstance(entry, np.ndarray) else entry, config=limits
        )
        if fit is None:
            fit = _fit(len(source), image.height, image.width, name, rules, limits)
        frames.append(fit(image))
    rate = rules.fps if limits.fps is None else limits.fps
    return Video(np.stack(frames), np.arange(len(frames)) / rate, rate, name)


def fit_video(video: Video, rules: VideoRules) -> Video:
    """Return a loaded video as another family sees the same frames: of the size that it takes.

    Args:
        video: loaded by the rules of one checkpoint.
        rules: of another.

    Raises:
        VlmkitError: frames of that shape cannot be brought to a size that it takes.
    """
    height, width = video.frames.shape[1:3]
    fit = _fit(len(video.frames), height, width, video.name, rules, PreprocessConfig())
    if fit.then == (height, width):
        return video
    return video._replace(frames=np.stack([fit(Image.fromarray(one)) for one in video.frames]))


class _Fit(NamedTuple):
    """Bring frames to one size."""

    first: tuple[int, int] | None  # (height, width): resize_shape
    then: tuple[int, int]
    resample: int

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        if self.first is not None:
            image = resize_image(image, self.first)
        height, width = self.then
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling(self.resample))
        return np.asarray(image)


def _fit(
    num_frames: int,
    height: int,
    width: int,
    name: str,
    rules: VideoRules,
    limits: PreprocessConfig,
) -> _Fit:
    shape = limits.resize_shape
    try:
        size = rules.size(num_frames, *((height, width) if shape is None else shape))
    except VlmkitError as error:
        raise VlmkitError(f"{name}: {error}") from error
    return _Fit(shape, size, rules.resample)


class _Facts(NamedTuple):
    """What is known of a video before its frames are decoded."""

    total: int  # frames
    rate: float  # per second


def _decode(stream: BinaryIO, name: str, rules: VideoRules, limits: PreprocessConfig) -> Video:
    facts, is_counted = _facts(stream, name, limits)
    while True:
        wanted = rules.sample(facts.total, facts.rate, limits.fps, limits.max_frames)
        frames, seen = _taken(stream, name, wanted.tolist(), rules, limits)
        if not seen:
            raise VlmkitError(f"{name}: a video of zero frames; give one that shows something")
        if len(frames) == len(wanted) or is_counted:
            break
        facts, is_counted = facts._replace(total=seen), True  # the file said more than it has
    wanted = wanted[: len(frames)]
    rate = len(wanted) / facts.total * facts.rate
    return Video(np.stack(frames), wanted / facts.rate, rate, name)


def _facts(stream: BinaryIO, name: str, limits: PreprocessConfig) -> tuple[_Facts, bool]:
    """Return how many frames there are and how fast, and whether they were counted."""
    with opened_container(stream, name) as container:
        if not container.streams.video:
            raise VlmkitError(f"{name}: has no video stream; give a file with pictures")
        track = container.streams.video[0]
        codec = decoder_of(track, name)
        _check_pixels(codec.height, codec.width, name, limits)
        rate = float(track.average_rate or track.guessed_rate or 0)
        if not rate > 0:
            raise VlmkitError(f"{name}: does not say how many frames there are in a second")
        total = int(track.frames)
        is_counted = total <= 0
        if is_counted:
            total = 0
            for packet in container.demux(track):
                total += packet.size > 0
                _check_count(total, rate, name, limits)
    _check_count(total, rate, name, limits)
    stream.seek(0)
    return _Facts(max(total, 1), rate), is_counted


def _taken(
    stream: BinaryIO,
    name: str,
    wanted: list[int],
    rules: VideoRules,
    limits: PreprocessConfig,
) -> tuple[list[NDArray[np.uint8]], int]:
    """Decode until the last frame wanted; return those wanted, and how many were gone through."""
    found: list[NDArray[np.uint8]] = []
    count, fit = 0, None
    stream.seek(0)
    for image in _images(stream, name, limits):
        while len(found) < len(wanted) and wanted[len(found)] == count:
            if fit is None:
                fit = _fit(len(wanted), image.height, image.width, name, rules, limits)
            found.append(fit(image))
        count += 1
        if len(found) == len(wanted) or count > MAX_DECODED_FRAMES:
            break
    return found, count


def _images(stream: BinaryIO, name: str, limits: PreprocessConfig) -> Iterator[Image.Image]:
    with opened_container(stream, name) as container:
        track = container.streams.video[0]
        decoder_of(track, name).options = {"max_pixels": str(limits.max_image_pixels)}
        for frame in container.decode(track):
            _check_pixels(frame.height, frame.width, name, limits)
            pixels = frame.to_ndarray(format="rgb24")
            turns = round(frame.rotation / 90)  # counterclockwise
            yield Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns)))


def _check_pixels(height: int, width: int, name: str, limits: PreprocessConfig) -> None:
    if height < 1 or width < 1:
        raise VlmkitError(f"{name}: has no pixels (height {height}, width {width})")
    if height * width > limits.max_image_pixels:
        raise VlmkitError(
            f"{name}: frames of {height}×{width} = {height * width:,} pixels, the limit is"
            f" {limits.max_image_pixels:,} (preprocess.max_image_pixels); scale it down"
        )


def _check_count(total: int, rate: float, name: str, limits: PreprocessConfig) -> None:
    if total > limits.max_video_s * rate:
        raise VlmkitError(
            f"{name}: longer than {limits.max_video_s:g} s (preprocess.max_video_s); cut it"
        )
    if total > MAX_DECODED_FRAMES:
        raise VlmkitError(f"{name}: more than {MAX_DECODED_FRAMES:,} frames; cut it")

"""Placeholders of a prompt become the tokens of their media."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.contracts.packed_parts import pack_parts
from vlmkit.errors import VlmkitError
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.preprocess.pixels import Pixels
from vlmkit.preprocess.sounds import Clip, resample
from vlmkit.preprocess.videos import Video
from vlmkit.processors import Processor
from vlmkit.processors.video_rules import frame_times

KINDS = ("image", "video", "audio")


class Part(NamedTuple):
    """Tokens in place of a placeholder: text, or one medium that it is repeated for."""

    num_tokens: int
    text_ids: tuple[int, ...] = ()  # what the tokens are, where they are text
    kind: str = ""
    data: NDArray[np.float32] | None = None
    shape: tuple[int, ...] = ()
    seconds: float | None = None
    digest: bytes | None = None  # of a medium, where it is known


Shown = tuple[Part, ...]
"""What one placeholder becomes."""


def show_video(processor: Processor, video: Video) -> Shown:
    """Cut a video into patches, with its times as its family wants them.

    Where times are text, each step of the grid is a medium of its own, between the markers of what
    is seen.
    """
    rules = processor.video
    assert rules is not None
    patches, grid = rules.process(video.frames)
    step = rules.temporal_patch_size
    if rules.times != "text":
        seconds = step / video.rate if rules.times == "positions" else None
        return (Part(processor.num_image_tokens(grid), (), "video", patches, tuple(grid), seconds),)
    before, after = _markers(processor)
    each = len(patches) // grid.time
    num_tokens = processor.num_image_tokens(grid._replace(time=1))
    parts: list[Part] = []
    for index, seconds in enumerate(frame_times(video.times, step)):
        text = (*processor.encode(f"<{seconds:.1f} seconds>"), *before)
        data = patches[index * each : (index + 1) * each]
        parts += [
            Part(len(text), text),
            Part(num_tokens, (), "video", data, (1, grid.height, grid.width)),
            Part(len(after), tuple(after)),
        ]
    return tuple(parts)


def show_clip(processor: Processor, clip: Clip, config: PreprocessConfig) -> Shown:
    """Turn a sound into features, window after window.

    Raises:
        VlmkitError: it is longer than the model hears at once, or too short for a token.
    """
    rules = processor.audio
    assert rules is not None
    samples, most = resample(clip, rules.sampling_rate), rules.max_samples
    heard_s = most / rules.sampling_rate
    if len(samples) > most and config.long_audio == "refuse":
        raise VlmkitError(
            f"{clip.name}: is {clip.seconds:.1f} s long, and the model hears {heard_s:g} s at once;"
            " give parts of it, or set preprocess.long_audio to cut or split"
        )
    if config.long_audio == "cut":
        samples = samples[:most]
    rows, shape, count = [], [], 0
    for start in range(0, len(samples), most):
        data, frames = rules.features(samples[start : start + most])
        if tokens := rules.num_tokens(frames):
            rows.append(data)
            shape.append(frames)
            count += tokens
    if not rows:
        raise VlmkitError(f"{clip.name}: is too short to be heard ({1000 * clip.seconds:.0f} ms)")
    return (Part(count, (), "audio", np.concatenate(rows), tuple(shape)),)


def show_expanded(processor: Processor, image: Image.Image) -> Shown:
    """Return what an image becomes whose own processor says which tokens stand for it."""
    assert processor.expand_image is not None
    found = processor.expand_image(image)
    data, shape = pack_parts(found.parts)
    shape = (found.token_ids.count(processor.image_token_id), *shape)
    return (Part(len(found.token_ids), found.token_ids, "image", data, shape),)


def count_tokens(shown: Shown) -> int:
    """Return how many tokens a placeholder becomes."""
    return sum(part.num_tokens for part in shown)


def expand(
    processor: Processor, token_ids: Sequence[int], shown: Mapping[str, Sequence[Shown]]
) -> Inputs:
    """Put media in the places of their placeholders, each kind in its order.

    A video whose times are text takes the place of the markers around its placeholder too.
    """
    kinds = {processor.placeholder_id(kind): kind for kind in KINDS if shown.get(kind)}
    left: dict[str, Iterator[Shown]] = {kind: iter(shown[kind]) for kind in kinds.values()}
    ids: list[int] = []
    media: list[Media] = []
    skip_next = False
    for place, token_id in enumerate(token_ids):
        if skip_next:
            skip_next = False
            continue
        if token_id not in kinds:
            ids.append(token_id)
            continue
        parts = next(left[kinds[token_id]])
        if len(parts) > 1:
            before, after = _markers(processor)
            skip_next = ids[-1:] == before and list(token_ids[place + 1 : place + 2]) == after
            if skip_next:
                ids.pop()
        for part in parts:
            start = len(ids)
            ids += part.text_ids or [token_id] * part.num_tokens
            if part.data is not None:
                span = (start, len(ids))
                media.append(_medium(part, part.data, span))
    return Inputs.of(np.array(ids, np.int32), media)


def _markers(processor: Processor) -> tuple[list[int], list[int]]:
    """What stands around what is seen."""
    return processor.encode("<|vision_start|>"), processor.encode("<|vision_end|>")


def _medium(part: Part, data: NDArray[np.float32], span: tuple[int, int]) -> Media:
    if part.digest is not None:
        return Media(part.kind, data, part.shape, span, part.digest, part.seconds)
    return Media.of(part.kind, data, part.shape, span, part.seconds)


def image_part(pixels: Pixels, num_tokens: int) -> Shown:
    """Return what the placeholder of an image becomes."""
    patches, grid = pixels.patches, tuple(pixels.grid)
    assert len(patches) == math.prod(grid)
    return (Part(num_tokens, (), "image", patches, grid, digest=pixels.digest),)

"""What to generate from, and how it becomes the model's inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from PIL.Image import Image

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Model
from vlmkit.errors import within
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import (
    AudioSource,
    Clip,
    ImageSource,
    PixelCache,
    Video,
    VideoSource,
    load_clip,
    load_image,
    load_video,
    prepare,
)
from vlmkit.processors import Processor


class Request(NamedTuple):
    """What to generate from."""

    prompt: str | Sequence[int]  # formatted text, or token ids
    images: tuple[ImageSource, ...] = ()
    audio: tuple[AudioSource | Clip, ...] = ()
    sample: int = 0  # which of several independent samples of the same prompt this is
    video: tuple[VideoSource | Video, ...] = ()


def load_images(request: Request, pipeline: PipelineConfig) -> tuple[Image, ...]:
    """Fetch and decode the request's images, each once, whatever reads them afterwards.

    Raises:
        VlmkitError: an image cannot be read.
    """
    images = []
    for index, image in enumerate(request.images):
        with within("images", index):
            images.append(load_image(image, config=pipeline.preprocess))
    return tuple(images)


def load_media(processor: Processor, request: Request, pipeline: PipelineConfig) -> Request:
    """Fetch and decode all media of a request, each once, whatever reads them afterwards.

    Raises:
        VlmkitError: a medium cannot be read.
    """
    config, clips, videos = pipeline.preprocess, [], []
    images = load_images(request, pipeline)
    for index, sound in enumerate(request.audio):
        with within("audio", index):
            clips.append(load_clip(sound, config=config))
    for index, video in enumerate(request.video):
        assert processor.video is not None
        with within("video", index):
            videos.append(load_video(video, processor.video, config=config))
    return request._replace(images=images, audio=tuple(clips), video=tuple(videos))


def content_key(request: Request, pipeline: PipelineConfig) -> Hashable:
    """Return what two requests with loaded media have in common if they are one prompt."""
    digest = hashlib.blake2b(pipeline.preprocess.model_dump_json().encode())
    for image in request.images:
        assert isinstance(image, Image)
        digest.update(repr(image.size).encode() + image.tobytes())
    for clip in request.audio:
        assert isinstance(clip, Clip)
        digest.update(repr((clip.rate, len(clip.samples))).encode() + clip.samples.tobytes())
    for video in request.video:
        assert isinstance(video, Video)
        digest.update(repr((video.frames.shape, video.rate)).encode() + video.times.tobytes())
        digest.update(video.frames.tobytes())
    prompt = request.prompt
    return prompt if isinstance(prompt, str) else tuple(prompt), digest.digest()


def prepare_inputs(
    model: Model,
    processor: Processor,
    request: Request,
    pipeline: PipelineConfig,
    known: PixelCache | None = None,
) -> Inputs:
    """Load the request's media and lay the prompt out as token ids and media.

    Args:
        known: images that were processed before; takes in these.
    """
    return prepare(
        processor,
        request.prompt,
        request.images,
        request.audio,
        request.video,
        config=pipeline.preprocess,
        context_length=model.config.max_position_embeddings,
        known=known,
    )


def context_left(model: Model, streams: Sequence[Inputs]) -> int | None:
    """How many tokens can follow all of these prompts; None where nothing limits them."""
    length: int | None = model.config.max_position_embeddings
    if length is None or not streams:
        return None
    return max(length - max(len(inputs.token_ids) for inputs in streams), 0)

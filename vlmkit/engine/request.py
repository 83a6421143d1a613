"""What to generate from, and how it becomes the model's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vlmkit.inputs import Inputs
from vlmkit.interface import Model
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import ImageSource, prepare
from vlmkit.processors import Processor


class Request(NamedTuple):
    """What to generate from."""

    prompt: str | Sequence[int]  # formatted text, or token ids
    images: tuple[ImageSource, ...] = ()
    audio: tuple[Any, ...] = ()
    sample: int = 0  # which of several independent samples of the same prompt this is


def prepare_inputs(
    model: Model, processor: Processor, request: Request, pipeline: PipelineConfig
) -> Inputs:
    """Load the request's media and lay the prompt out as token ids and patches."""
    return prepare(
        processor,
        request.prompt,
        request.images,
        request.audio,
        config=pipeline.preprocess,
        context_length=model.config.max_position_embeddings,
    )

"""From an arm and a sample to what the engine takes: the formatted prompt and decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL.Image import Image

from vlmkit.config.conversation import conversation
from vlmkit.config.formatting import format_messages
from vlmkit.config.locate import located
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Model
from vlmkit.engine import Request, prepare_inputs
from vlmkit.errors import VlmkitError
from vlmkit.experiment.arms import QUESTION, Arm
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring import opens_thinking
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.resolve import Resolved, load_images, resolve


class Prepared(NamedTuple):
    """One sample under the prompt, template and preprocess of some arms."""

    request: Request  # with its images decoded
    images: tuple[Image, ...]
    inputs: Inputs
    thinks: bool  # a response begins with thinking, which the prompt opened


def _asked(arm: Arm, sample: Sample) -> list[dict[str, Any]]:
    """The arm's messages about a sample."""
    return [
        {**message, "content": message["content"].replace(QUESTION, sample.question)}
        for message in conversation(arm.config, arm.config.prompt)
    ]


def prepare_sample(model: Model, processor: Processor, arm: Arm, sample: Sample) -> Prepared:
    """Decode a sample's images and lay its prompt out as token ids.

    Raises:
        VlmkitError: an image that cannot be read, or a prompt that does not fit the model.
    """
    pipeline = arm.config.pipeline
    images = load_images(Request("", sample.images), pipeline)
    text = format_messages(processor, arm.config, _asked(arm, sample), num_images=len(images))
    request = Request(text, images)
    inputs = prepare_inputs(model, processor, request, pipeline)
    return Prepared(request, images, inputs, opens_thinking(text))


def resolve_arm(
    model: Model, processor: Processor, arm: Arm, seeds: Sequence[int]
) -> list[Resolved]:
    """Build an arm's pipeline once per seed.

    Raises:
        VlmkitError: it cannot run on this model; names the arm.
    """
    pipelines = [
        PipelineConfig.model_validate({**dict(arm.config.pipeline), "seed": seed}) for seed in seeds
    ]
    try:
        with located(arm.tree):
            return [resolve(model, processor, pipeline) for pipeline in pipelines]
    except VlmkitError as error:
        raise VlmkitError(f"{error} (in the arm {arm.name!r})", path=error.path) from error
